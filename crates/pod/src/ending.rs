//! How a pod ends: its phase moves down, and what runs is stopped.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::task::JoinSet;
use tracing::info;

use crate::order::{all_turns, last_turn};
use crate::phase;
use crate::record::{Phase, Stop};
use crate::restart::later;
use crate::worker::Worker;

/// The least time between a container's stop notice and its end, however long ago the pod was told to end and whatever grace
/// was asked for; the kubelet's `minimumGracePeriodInSeconds`.
const LEAST: Duration = Duration::from_secs(2);

impl Worker {
    /// Moves the phase down as far as what is desired and what has happened say.
    pub(crate) fn descend(&mut self) {
        let asked = self.is_to_end();
        if asked {
            self.shorten();
        }
        if self.record.phase == Phase::Syncing && (asked || phase::has_finished(&self.record)) {
            self.fetches = JoinSet::new();
            self.refer_no_more();
            self.enter(Phase::Terminating);
        }
        if self.record.phase == Phase::Terminating
            && self.live.is_empty()
            && self.unclear.is_empty()
        {
            self.enter(Phase::Terminated);
        }
    }

    /// Whether somebody wants the pod to end, and something of it may still run.
    pub(crate) fn is_to_end(&self) -> bool {
        let asked = self.is_removed()
            || self.record.pod.metadata.deletion_timestamp.is_some()
            || self.record.failure.is_some();
        asked && self.record.phase < Phase::Terminated
    }

    fn enter(&mut self, phase: Phase) {
        info!(?phase, "pod moves on");
        self.record.phase = phase;
        if phase == Phase::Terminated {
            self.host.ledger.release(self.uid());
        }
        self.save();
    }

    /// The grace period only shrinks: from the first notice on, whatever is asked later. A pod that was removed by force
    /// has the least there is.
    fn shorten(&mut self) {
        let meta = &self.record.pod.metadata;
        let forced = self.is_removed() && meta.deletion_timestamp.is_none();
        let by_node = self.record.failure.as_ref().and_then(|failure| failure.grace);
        let by_user = meta.deletion_grace_period_seconds;
        let by_user = by_user.map(|grace| u64::try_from(grace).unwrap_or(0));
        let asked = by_node.into_iter().chain(by_user).chain(forced.then_some(1)).min();
        let grace = asked.unwrap_or_else(|| own_grace(&self.record.pod)).max(1);
        let stop = self.record.stop.unwrap_or(Stop { since: Timestamp::now(), grace });
        let shorter = Stop { grace: stop.grace.min(grace), ..stop };
        if self.record.stop != Some(shorter) {
            self.record.stop = Some(shorter);
            self.save();
        }
    }

    /// Stops what runs: first the preStop hooks, all at once, then the notice, and when the grace is over the kill. A sidecar
    /// has its notice when all that it may serve is gone; the time is taken from the one grace period.
    pub(crate) fn terminate(&mut self) {
        let now = Timestamp::now();
        let grace = own_grace(&self.record.pod);
        let stop = *self.record.stop.get_or_insert(Stop { since: now, grace });
        for container in all_turns(&self.record.pod, self.live.keys()) {
            self.prepare(&container, stop, &format!("Stopping container {container}"));
        }
        for container in last_turn(&self.record.pod, self.live.keys()) {
            self.stop(&container, stop);
        }
    }
}

/// The grace period of a pod that nobody has shortened, in seconds.
pub(crate) fn own_grace(pod: &Pod) -> u64 {
    const DEFAULT: i64 = 30;
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    u64::try_from(own.unwrap_or(DEFAULT)).unwrap_or(0)
}

/// When a container is killed that was given the stop notice at `told`.
pub(crate) fn kill_at(stop: Stop, told: Timestamp) -> Timestamp {
    later(stop.since, Duration::from_secs(stop.grace)).max(later(told, LEAST))
}

/// Whether the pod's guests cannot make use of a grace period, and say so.
pub(crate) fn stops_at_once(pod: &Pod) -> bool {
    const ANNOTATION: &str = "nodule.dev/stop";
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_counts_from_the_pods_end_and_two_seconds_from_the_notice_are_the_least() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (since, grace, told, kill) in [
            (100, 30, 100, 130),
            // The agent was away: a container that is told late is not told in vain.
            (100, 30, 129, 131),
            (100, 30, 500, 502),
            (100, 1, 100, 102),
            (100, 0, 100, 102),
        ] {
            let stop = Stop { since: at(since), grace };
            assert_eq!(kill_at(stop, at(told)), at(kill), "{since} {grace} {told}");
        }
    }
}
