//! How often registries are asked for images, in the kubelet's terms: a pull beyond it fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::reference::Reference;
use crate::shared::Shared;

/// A rate of pulls (`registryPullQPS`, `registryBurst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullRate {
    /// Pulls a second in the long run; none for no limit.
    pub qps: Option<u32>,
    /// Pulls that may begin at once after a rest.
    pub burst: u32,
}

impl Default for PullRate {
    /// The kubelet's.
    fn default() -> Self {
        Self { qps: Some(5), burst: 10 }
    }
}

/// Counts pulls (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When all turns that were given are worked off.
    full: Mutex<Option<Instant>>,
}

impl Rate {
    /// Whether one more may begin now.
    pub(crate) fn admits(&self, rate: PullRate) -> bool {
        let Some(qps) = rate.qps.filter(|qps| *qps > 0) else { return true };
        let interval = Duration::from_secs(1) / qps;
        let now = Instant::now();
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = full.map_or(now, |full| full.max(now));
        let is_in_time = begin.duration_since(now) <= interval * rate.burst.saturating_sub(1);
        if is_in_time {
            *full = Some(begin + interval);
        }
        is_in_time
    }
}

/// Pulls that are under way, by what is pulled: who may not pull may wait for who does.
#[derive(Default)]
pub(crate) struct Underway(Shared<watch::Sender<()>>);

/// A pull that is under way, until dropped.
pub(crate) struct Mark(
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<watch::Sender<()>>,
);

impl Underway {
    pub(crate) fn mark(&self, reference: &Reference) -> Mark {
        Mark(self.0.join(&reference.to_string(), || watch::Sender::new(())))
    }

    /// Waits until nobody pulls it.
    pub(crate) async fn ended(&self, reference: &Reference) {
        let under_way = self.0.get(&reference.to_string()).map(|mark| mark.subscribe());
        if let Some(mut mark) = under_way {
            // Nothing is ever sent: this is the end of the last sender.
            while mark.changed().await.is_ok() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_admitted_and_the_rest_at_the_rate() {
        let (counted, rate) = (Rate::default(), PullRate { qps: Some(10), burst: 3 });
        let admitted = || (0..9).filter(|_| counted.admits(rate)).count();
        assert_eq!(admitted(), 3);
        for (millis, expected) in [(99, 0), (1, 1), (200, 2), (60_000, 3)] {
            tokio::time::advance(Duration::from_millis(millis)).await;
            assert_eq!(admitted(), expected, "{millis}");
        }
        let none = PullRate { qps: None, burst: 0 };
        assert_eq!((0..1000).filter(|_| counted.admits(none)).count(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_pull_waits_for_all_who_do() {
        let (underway, image) = (Underway::default(), Reference::parse("r.io/a:1").unwrap());
        let other = Reference::parse("r.io/b:1").unwrap();
        let (first, second) = (underway.mark(&image), underway.mark(&image));
        underway.ended(&other).await;
        let soon = async |image| {
            tokio::time::timeout(Duration::from_secs(1), underway.ended(image)).await.is_ok()
        };
        drop(first);
        assert!(!soon(&image).await);
        drop(second);
        assert!(soon(&image).await);
    }
}
