//! Whether and when an ended container runs again: pure decisions, no IO.
//!
//! The rules are the kubelet's: the first restart is immediate, then 10 s doubling to a cap, counted from the moment the
//! container ended and forgotten after twice the cap of good behaviour (Kubernetes docs, "Pod Lifecycle: how Pods handle
//! problems with containers").

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, PodSpec};
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

/// What the end of a container asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does not run again.
    Stay,
    /// It runs again.
    Again,
    /// All containers of the pod do, the init containers first (KEP-5532).
    All,
}

/// What a container that ended with `exit_code` asks for: the first of its own rules that matches, else its own policy (KEP-5307),
/// else the pod's.
pub(crate) fn verdict(spec: &PodSpec, container: &Container, exit_code: i32) -> Verdict {
    if let Some(rule) = rules(container).find(|rule| matches(rule, exit_code)) {
        return if rule.action == "RestartAllContainers" { Verdict::All } else { Verdict::Again };
    }
    let policy =
        container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always");
    match policy {
        "Never" => Verdict::Stay,
        "OnFailure" if exit_code == 0 => Verdict::Stay,
        _ => Verdict::Again,
    }
}

/// As [`verdict`] for an init container: one that has done its work never runs again for its own sake, and "Always" of the
/// pod means "until it succeeds" for it.
pub(crate) fn verdict_init(spec: &PodSpec, container: &Container, exit_code: i32) -> Verdict {
    let verdict = verdict(spec, container, exit_code);
    let is_done = exit_code == 0 && !is_sidecar(container);
    if verdict == Verdict::Again && is_done { Verdict::Stay } else { verdict }
}

/// Whether the container runs again, alone or with all others.
pub(crate) fn may_restart(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    verdict(spec, container, exit_code) != Verdict::Stay
}

/// As [`may_restart`] for an init container.
pub(crate) fn may_restart_init(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    verdict_init(spec, container, exit_code) != Verdict::Stay
}

/// Rules count only beside a policy of the container's own; the API server sees to that.
fn rules(container: &Container) -> impl Iterator<Item = &ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().filter(|_| container.restart_policy.is_some())
}

fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let named = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    })
}

/// An init container that runs beside the others for as long as the pod does (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerRestartRuleOnExitCodes;

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

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |action: &str, operator: &str, values: &[i32]| ContainerRestartRule {
            action: action.to_owned(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: operator.to_owned(),
                values: Some(values.to_vec()),
            }),
        };
        let container = Container {
            restart_policy: Some("Never".to_owned()),
            restart_policy_rules: Some(vec![
                rule("Restart", "In", &[1, 2]),
                rule("RestartAllContainers", "In", &[2, 3]),
                rule("Restart", "NotIn", &[0, 9]),
            ]),
            ..Container::default()
        };
        let spec = PodSpec::default();
        for (code, wanted) in [
            (0, Verdict::Stay),
            (1, Verdict::Again),
            (2, Verdict::Again),
            (3, Verdict::All),
            (4, Verdict::Again),
            (9, Verdict::Stay),
        ] {
            assert_eq!(verdict(&spec, &container, code), wanted, "{code}");
            assert_eq!(verdict_init(&spec, &container, code), wanted, "init {code}");
        }
        let without = Container { restart_policy: None, ..container };
        assert_eq!(verdict(&spec, &without, 9), Verdict::Again);
    }
}
