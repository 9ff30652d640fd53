//! How often the API server may be asked.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate of requests, in the kubelet's terms: `kubeAPIQPS` with `kubeAPIBurst`, `eventRecordQPS` with `eventBurst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests a second in the long run; none for no limit.
    pub qps: Option<u32>,
    /// Requests that may be made at once after a rest.
    pub burst: u32,
}

impl Default for Limit {
    /// The kubelet's defaults, which are the same for both.
    fn default() -> Self {
        Self { qps: Some(50), burst: 100 }
    }
}

/// Gives everyone who asks a turn, in the order of asking (the generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct Rate {
    /// Between two turns; none for no limit.
    interval: Option<Duration>,
    burst: u32,
    /// When all turns that were given are worked off.
    full: Mutex<Option<Instant>>,
}

impl Rate {
    pub(crate) fn new(limit: Limit) -> Self {
        let qps = limit.qps.filter(|qps| *qps > 0);
        Self {
            interval: qps.map(|qps| Duration::from_secs(1) / qps),
            burst: limit.burst.max(1),
            full: Mutex::default(),
        }
    }

    /// Waits for a turn. Dropped, the turn is lost and nothing else.
    pub(crate) async fn turn(&self) {
        if let Some(due) = self.due() {
            sleep_until(due).await;
        }
    }

    fn due(&self) -> Option<Instant> {
        let interval = self.interval?;
        let now = Instant::now();
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = full.map_or(now, |full| full.max(now));
        *full = Some(begin + interval);
        begin.checked_sub(interval * (self.burst - 1)).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_has_its_turns_at_once_and_the_rest_at_the_rate() {
        let rate = Rate::new(Limit { qps: Some(10), burst: 3 });
        let start = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            rate.turn().await;
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let rest = Instant::now();
        for _ in 0..3 {
            rate.turn().await;
        }
        assert_eq!(rest.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let rate = Rate::new(Limit { qps: None, burst: 0 });
        for _ in 0..10_000 {
            rate.turn().await;
        }
        assert!(rate.full.lock().unwrap().is_none());
    }
}
