use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

/// While the API server is away, at most a line in this time says so.
const REMINDER: Duration = Duration::from_secs(60);

/// Whether the API server does what the tasks ask of it. Shared by them, so that an outage is one warning when it
/// begins, one line when it is over, and a reminder a minute between.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    state: Arc<Mutex<State>>,
    recovered: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// What does not work now.
    failing: BTreeSet<&'static str>,
    /// When the first of it began to fail, and when the last line was written.
    since: Option<Instant>,
    told: Option<Instant>,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Away,
    Still(Duration),
    Back(Duration),
}

impl Reach {
    /// The operation did not work and will be tried again.
    pub(crate) fn failed(&self, operation: &'static str, error: &(dyn Error + 'static)) {
        let line = self.state().failed(operation, Instant::now());
        match line {
            Some(Line::Away) => {
                warn!(operation, error, "API server does not take what it is asked; trying again");
            }
            Some(Line::Still(away)) => {
                warn!(
                    operation,
                    error,
                    seconds = away.as_secs(),
                    "API server still does not take what it is asked"
                );
            }
            Some(Line::Back(_)) | None => {}
        }
    }

    /// The operation worked.
    pub(crate) fn worked(&self, operation: &'static str) {
        let (recovered, line) = self.state().worked(operation, Instant::now());
        if let Some(Line::Back(away)) = line {
            info!(operation, seconds = away.as_secs(), "API server takes what it is asked again");
        }
        if recovered {
            self.recovered.send_replace(());
        }
    }

    /// Changes whenever something works again that had failed: what is known of the API server may be old then.
    pub(crate) fn recovered(&self) -> watch::Receiver<()> {
        self.recovered.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn failed(&mut self, operation: &'static str, now: Instant) -> Option<Line> {
        self.failing.insert(operation);
        let since = *self.since.get_or_insert(now);
        let line = match self.told {
            None => Line::Away,
            Some(told) if now.duration_since(told) >= REMINDER => {
                Line::Still(now.duration_since(since))
            }
            Some(_) => return None,
        };
        self.told = Some(now);
        Some(line)
    }

    /// Whether the operation had failed, and what to write. Back is when all that failed has worked: one part that
    /// works while another hangs is no end of the trouble.
    fn worked(&mut self, operation: &'static str, now: Instant) -> (bool, Option<Line>) {
        let failed = self.failing.remove(operation);
        if !failed || !self.failing.is_empty() {
            return (failed, None);
        }
        self.told = None;
        (true, self.since.take().map(|since| Line::Back(now.duration_since(since))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_one_line_a_minute_at_most() {
        let (mut state, start) = (State::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let seconds = Duration::from_secs;
        assert_eq!(state.worked("lease", at(0)), (false, None));
        assert_eq!(state.failed("lease", at(1)), Some(Line::Away));
        for second in 2..60 {
            assert_eq!(
                state.failed(if second % 2 == 0 { "lease" } else { "status" }, at(second)),
                None
            );
        }
        assert_eq!(state.failed("status", at(61)), Some(Line::Still(seconds(60))));
        assert_eq!(state.worked("lease", at(70)), (true, None));
        assert_eq!(state.worked("lease", at(71)), (false, None));
        assert_eq!(state.worked("status", at(72)), (true, Some(Line::Back(seconds(71)))));
        assert_eq!(state.worked("status", at(73)), (false, None));
        assert_eq!(state.failed("lease", at(80)), Some(Line::Away));
    }
}
