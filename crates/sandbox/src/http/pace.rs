//! How long one request may take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The two time-outs of every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From one sign of life to the next: the request's head, a piece of its body, the answer's head, a piece of that.
    pub(super) pause: Duration,
    /// From the request's head to the end of the answer.
    pub(super) whole: Duration,
}

/// The pace of one request.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    began: Instant,
    /// The last sign of life, in milliseconds after the beginning.
    last: AtomicU64,
    /// Whether its instance ended before its time.
    broken: AtomicBool,
}

impl Pace {
    /// It begins now.
    pub(super) fn new(limits: Limits) -> Self {
        let began = Instant::now();
        Self { limits, began, last: AtomicU64::new(0), broken: AtomicBool::new(false) }
    }

    /// A sign of life.
    pub(super) fn touch(&self) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// Its instance has ended before its time: what there is of an answer is not the whole.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// When it is over, unless there is another sign of life.
    pub(super) fn deadline(&self) -> Instant {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.began + (last + self.limits.pause).min(self.limits.whole)
    }

    pub(super) fn is_over(&self) -> bool {
        self.deadline() <= Instant::now()
    }

    /// Waits until it is over.
    pub(super) async fn over(&self) {
        while !self.is_over() {
            sleep_until(self.deadline()).await;
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_prolong_it_up_to_the_whole() {
        let pace = Pace::new(Limits { pause: 3 * SECOND, whole: 7 * SECOND });
        for _ in 0..3 {
            advance(2 * SECOND).await;
            assert!(!pace.is_over());
            pace.touch();
        }
        advance(SECOND).await;
        assert!(pace.is_over(), "a request without an end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_too_long_ends_it() {
        let pace = Pace::new(Limits { pause: 3 * SECOND, whole: 7 * SECOND });
        let began = Instant::now();
        pace.over().await;
        assert_eq!(began.elapsed().as_secs(), 3);
    }
}
