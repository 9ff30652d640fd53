//! Whether and when an ended container runs again: pure decisions, no IO.
//!
//! The rules are the kubelet's: the first restart is immediate, then 10 s doubling to a cap, counted from the moment the
//! container ended and forgotten after twice the cap of good behaviour (Kubernetes docs, "Pod Lifecycle: how Pods handle
//! problems with containers").

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde::{Deserialize, Serialize};

/// The first wait of every back-off here: restarts and image pulls alike.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two pulls of an image, and the default for two runs of a container.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// How long a container that ends again has to wait. Kept in the pod's record: an agent restart does not shorten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    /// The wait after the next end, in seconds.
    pub(crate) seconds: u64,
    /// The end that set it.
    pub(crate) since: Timestamp,
}

/// What to do about a container that has ended and may run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run it now, and remember this.
    Now(Backoff),
    /// Run it at this time; the wait as a whole is given for the message.
    At(Timestamp, Duration),
}

/// When a container that ended at `finished` runs again.
pub(crate) fn next(
    backoff: Option<Backoff>,
    finished: Timestamp,
    now: Timestamp,
    longest: Duration,
) -> Next {
    let first = Backoff { seconds: FIRST.min(longest).as_secs(), since: finished };
    let Some(earlier) = backoff.filter(|earlier| !forgotten(*earlier, finished, longest)) else {
        return Next::Now(first);
    };
    let wait = Duration::from_secs(earlier.seconds).min(longest);
    let due = later(finished, wait);
    if now < due {
        return Next::At(due, wait);
    }
    Next::Now(Backoff { seconds: (earlier.seconds * 2).min(longest.as_secs()), since: finished })
}

fn forgotten(backoff: Backoff, finished: Timestamp, longest: Duration) -> bool {
    finished > later(backoff.since, longest * 2)
}

/// `moment` plus `wait`; the end of time where that overflows.
pub(crate) fn later(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Whether a container that ended with `exit_code` runs again by the pod's policy or its own (KEP-753 sidecars,
/// KEP-5307 container restart policy).
pub(crate) fn may_restart(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    let policy =
        container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always");
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// As [`may_restart`] for an init container: one that has done its work never runs again, and "Always" of the pod means
/// "until it succeeds" for it.
pub(crate) fn may_restart_init(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    is_sidecar(container) || (exit_code != 0 && may_restart(spec, container, exit_code))
}

/// An init container that runs beside the others for as long as the pod does (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backoff(seconds: u64, since: i64) -> Backoff {
        Backoff { seconds, since: at(since) }
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_waits_double_to_the_cap() {
        let mut known = None;
        let mut clock = 1000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let finished = at(clock);
            let now = match next(known, finished, finished, LONGEST) {
                Next::Now(_) => finished,
                Next::At(due, _) => due,
            };
            waits.push(now.as_second() - clock);
            let Next::Now(set) = next(known, finished, now, LONGEST) else { panic!("due") };
            known = Some(set);
            clock = now.as_second() + 1;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_container_that_ran_for_twice_the_cap_starts_afresh() {
        let known = Some(backoff(160, 1000));
        assert_eq!(next(known, at(1601), at(1601), LONGEST), Next::Now(backoff(10, 1601)));
        assert_eq!(
            next(known, at(1600), at(1600), LONGEST),
            Next::At(at(1760), Duration::from_secs(160))
        );
    }

    #[test]
    fn a_short_cap_holds_from_the_first_wait_on() {
        let cap = Duration::from_secs(1);
        let Next::Now(set) = next(None, at(5), at(5), cap) else { panic!("first") };
        assert_eq!(set, backoff(1, 5));
        assert_eq!(next(Some(set), at(6), at(6), cap), Next::At(at(7), cap));
    }

    #[test]
    fn policies_decide_by_exit_code() {
        let spec = |policy: &str| PodSpec {
            restart_policy: Some(policy.to_owned()),
            ..PodSpec::default()
        };
        let plain = Container::default();
        let sidecar =
            Container { restart_policy: Some("Always".to_owned()), ..Container::default() };
        for (policy, code, run, init) in [
            ("Always", 0, true, false),
            ("Always", 1, true, true),
            ("OnFailure", 0, false, false),
            ("OnFailure", 1, true, true),
            ("Never", 0, false, false),
            ("Never", 1, false, false),
        ] {
            assert_eq!(may_restart(&spec(policy), &plain, code), run, "{policy} {code}");
            assert_eq!(may_restart_init(&spec(policy), &plain, code), init, "init {policy} {code}");
            assert!(may_restart_init(&spec(policy), &sidecar, code), "sidecar {policy} {code}");
        }
    }
}
