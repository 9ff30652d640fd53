//! How fast a manifest or a blob has to come: a registry that sends a byte now and then would hold a slot for downloads for ever.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Problem;

/// The least that has to come of a blob within a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// Bytes.
    pub bytes: u64,
    /// In each such time.
    pub within: Duration,
}

impl Default for Pace {
    /// 1 KiB in a second, looked at each minute: a seventh of what a telephone line gives (ITU-T V.90), and a hundred times what
    /// Cargo takes for no download at all (`http.low-speed-limit`).
    fn default() -> Self {
        Self { bytes: 60 << 10, within: Duration::from_secs(60) }
    }
}

/// Measures one answer against it.
#[derive(Debug)]
pub(crate) struct Meter<'p> {
    pace: &'p Pace,
    since: Instant,
    bytes: u64,
}

impl<'p> Meter<'p> {
    pub(crate) fn new(pace: &'p Pace) -> Self {
        Self { pace, since: Instant::now(), bytes: 0 }
    }

    /// Notes that so many bytes more have come, and not the last.
    pub(crate) fn add(&mut self, bytes: usize, what: &'static str) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let within = self.since.elapsed();
        if within < self.pace.within {
            return Ok(());
        }
        let got = std::mem::take(&mut self.bytes);
        self.since = Instant::now();
        // A wait for bytes may have gone on beyond the time: then more has to have come.
        let have = u128::from(got) * self.pace.within.as_nanos();
        let is_slow = have < u128::from(self.pace.bytes) * within.as_nanos().max(1);
        if is_slow { Err(Problem::TooSlow { what, got, within }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drip_is_too_slow_after_a_minute_and_a_burst_does_not_make_up_for_it() {
        let pace = Pace::default();
        let mut meter = Meter::new(&pace);
        let mut add = async |seconds, bytes| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            meter.add(bytes, "a layer").is_ok()
        };
        assert!(add(0, 10 << 20).await, "all at once");
        assert!(add(59, 1).await);
        assert!(add(1, 1).await, "enough came at the beginning");
        assert!(add(59, 1).await);
        assert!(!add(1, 1).await, "it was long ago");
        assert!(add(60, 60 << 10).await);
        assert!(!add(120, 60 << 10).await, "twice the time");
    }
}
