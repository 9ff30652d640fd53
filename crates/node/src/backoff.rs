use std::time::Duration;

use kube::runtime::utils::Backoff;

use crate::config::Periods;

/// Waits that double from the first to the last, each between half of itself and the whole.
pub(crate) struct Retry {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Retry {
    pub(crate) fn new(periods: &Periods) -> Self {
        Self { first: periods.retry_first, last: periods.retry_last, next: periods.retry_first }
    }

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.last);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.wait())
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_begin_again() {
        let mut retry = Retry::new(&Periods::default());
        for whole in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = retry.wait();
            assert!(
                wait >= Duration::from_millis(whole / 2) && wait <= Duration::from_millis(whole),
                "{whole}: {wait:?}"
            );
        }
        retry.reset();
        assert!(retry.wait() <= Duration::from_millis(200));
    }
}
