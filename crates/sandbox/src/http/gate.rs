//! How many requests are with guests at once, and how many wait for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::pace::Pace;

/// Counts requests. First come, first served.
pub(super) struct Gate {
    running: Arc<Semaphore>,
    /// All passes there are.
    passes: u32,
    waiting: AtomicUsize,
    longest: usize,
}

/// The right to be with a guest. Whoever holds it last is the instance that answers: its memory is what is scarce.
pub(super) type Pass = OwnedSemaphorePermit;

/// Why there was no pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// Too many wait already.
    Full,
    /// It waited until its time was over.
    Late,
}

impl Gate {
    pub(super) fn new(passes: u32, queue: u32) -> Self {
        let running = Arc::new(Semaphore::new(passes as usize));
        Self { running, passes, waiting: AtomicUsize::new(0), longest: queue as usize }
    }

    /// Waits for a pass, in the queue if need be.
    pub(super) async fn pass(&self, pace: &Pace) -> Result<Pass, Busy> {
        if let Ok(pass) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(pass);
        }
        let _place = self.queue()?;
        match timeout_at(pace.deadline(), Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(pass)) => Ok(pass),
            Ok(Err(_)) | Err(_) => Err(Busy::Late),
        }
    }

    fn queue(&self) -> Result<Place<'_>, Busy> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.waiting);
        if before < self.longest { Ok(place) } else { Err(Busy::Full) }
    }

    /// Waits until all passes are back.
    pub(super) async fn rest(&self) {
        // The semaphore is never closed.
        _ = self.running.acquire_many(self.passes).await;
    }
}

/// A place in the queue, given up when dropped: a client that goes away does not wait on.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pace::Limits;
    use super::*;

    fn pace() -> Pace {
        let second = Duration::from_secs(1);
        Pace::new(Limits { pause: second, whole: second })
    }

    #[tokio::test(start_paused = true)]
    async fn one_runs_one_waits_and_the_third_is_sent_away() {
        let (gate, pace) = (Gate::new(1, 1), pace());
        let first = gate.pass(&pace).await.unwrap();
        let second = gate.pass(&pace);
        let third = async {
            let third = gate.pass(&pace).await;
            drop(first);
            third
        };
        let (second, third) = tokio::join!(second, third);
        assert!(second.is_ok());
        assert_eq!(third.err(), Some(Busy::Full));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_sent_away_and_leaves_the_queue() {
        let gate = Gate::new(1, 1);
        let first = gate.pass(&pace()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(gate.pass(&pace()).await.err(), Some(Busy::Late));
        }
        drop(first);
        gate.rest().await;
    }
}
