//! Whether and when an ended container runs again: pure decisions, no IO.
//!
//! The rules are the kubelet's: the first restart is immediate, then 10 s doubling to a cap, counted from the moment the
//! container ended and forgotten after twice the cap of good behaviour (Kubernetes docs, "Pod Lifecycle: how Pods handle
//! problems with containers"), or when the container becomes another.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, Pod, PodSpec, ResourceRequirements,
};
use serde::{Deserialize, Serialize};

use crate::resize::resources;

/// The first wait of every back-off here: restarts and image pulls alike.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two pulls of an image, and the default for two runs of a container.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// How long a container that ends again has to wait. Kept in the pod's record: an agent restart does not shorten it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    /// The wait after the next end, in seconds.
    pub(crate) seconds: u64,
    /// When the container ran again and that set it.
    pub(crate) since: Timestamp,
    /// Whose it is; none where an agent of before has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<Of>,
}

/// What a container stays for as long as it has one back-off. The other parts of the kubelet's `GetBackoffKey`, the pod and the
/// container's name, are the record's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Of {
    image: Option<String>,
    resources: ResourceRequirements,
}

impl Of {
    fn new(container: &Container) -> Self {
        Self { image: container.image.clone(), resources: resources(container) }
    }
}

/// What to do about a container that has ended and may run again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// Run it now, and remember this.
    Now(Backoff),
    /// Run it at this time; the wait as a whole is given for the message.
    At(Timestamp, Duration),
}

/// When a container that ended at `finished` runs again.
pub(crate) fn next(
    container: &Container,
    known: Option<&Backoff>,
    finished: Timestamp,
    now: Timestamp,
    longest: Duration,
) -> Next {
    let of = Of::new(container);
    let set = |wait: Duration| Backoff {
        seconds: wait.min(longest).as_secs(),
        since: now,
        of: Some(of.clone()),
    };
    let holds = |known: &&Backoff| {
        known.of.as_ref().is_none_or(|known| *known == of) && !known.forgotten(finished, longest)
    };
    let Some(known) = known.filter(holds) else { return Next::Now(set(FIRST)) };
    let wait = Duration::from_secs(known.seconds).min(longest);
    let due = later(finished, wait);
    if now < due { Next::At(due, wait) } else { Next::Now(set(wait * 2)) }
}

impl Backoff {
    fn forgotten(&self, finished: Timestamp, longest: Duration) -> bool {
        finished > later(self.since, longest * 2)
    }
}

/// `moment` plus `wait`; the end of time where that overflows.
pub(crate) fn later(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// The action of a rule that asks for it.
const ALL: &str = "RestartAllContainers";

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
        return if rule.action == ALL { Verdict::All } else { Verdict::Again };
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

/// Whether the end of a container may ask for all of them to run again.
pub(crate) fn may_restart_all(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut all =
        spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    all.any(|container| rules(container).any(|rule| rule.action == ALL))
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

    fn app() -> Container {
        Container { image: Some("app:1".to_owned()), ..Container::default() }
    }

    fn backoff(seconds: u64, since: i64) -> Backoff {
        Backoff { seconds, since: at(since), of: Some(Of::new(&app())) }
    }

    fn wait(known: &Backoff, finished: i64) -> Next {
        next(&app(), Some(known), at(finished), at(finished), LONGEST)
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_waits_double_to_the_cap() {
        let mut known: Option<Backoff> = None;
        let mut clock = 1000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let finished = at(clock);
            let now = match next(&app(), known.as_ref(), finished, finished, LONGEST) {
                Next::Now(_) => finished,
                Next::At(due, _) => due,
            };
            waits.push(now.as_second() - clock);
            let Next::Now(set) = next(&app(), known.as_ref(), finished, now, LONGEST) else {
                panic!("due")
            };
            known = Some(set);
            clock = now.as_second() + 1;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_container_that_ran_for_twice_the_cap_starts_afresh() {
        // It ended at 1000, and ran again when it had waited.
        let Next::Now(known) = next(&app(), Some(&backoff(80, 900)), at(1000), at(1080), LONGEST)
        else {
            panic!("due")
        };
        assert_eq!(known, backoff(160, 1080));
        assert_eq!(wait(&known, 1680), Next::At(at(1840), Duration::from_secs(160)));
        assert_eq!(wait(&known, 1681), Next::Now(backoff(10, 1681)));
    }

    #[test]
    fn a_container_of_another_image_or_other_resources_starts_afresh() {
        let known = backoff(160, 1000);
        let more = serde_json::json!({"limits": {"memory": "1Gi"}});
        let resources = serde_json::from_value(more).unwrap();
        let image = Some("app:2".to_owned());
        let probe = Some(k8s_openapi::api::core::v1::Probe::default());
        for (container, is_another) in [
            (Container { image, ..app() }, true),
            (Container { resources: Some(resources), ..app() }, true),
            (Container { resources: Some(ResourceRequirements::default()), ..app() }, false),
            (Container { liveness_probe: probe, ..app() }, false),
        ] {
            let next = next(&container, Some(&known), at(1010), at(1010), LONGEST);
            let of = Some(Of::new(&container));
            let afresh = Next::Now(Backoff { seconds: 10, since: at(1010), of });
            assert_eq!(next == afresh, is_another, "{container:?}");
        }
    }

    #[test]
    fn a_back_off_of_an_agent_of_before_holds() {
        let text = r#"{"seconds": 160, "since": "1970-01-01T00:16:40Z"}"#;
        let known = serde_json::from_str(text).unwrap();
        assert_eq!(wait(&known, 1010), Next::At(at(1170), Duration::from_secs(160)));
    }

    #[test]
    fn a_short_cap_holds_from_the_first_wait_on() {
        let cap = Duration::from_secs(1);
        let Next::Now(set) = next(&app(), None, at(5), at(5), cap) else { panic!("first") };
        assert_eq!(set, backoff(1, 5));
        assert_eq!(next(&app(), Some(&set), at(6), at(6), cap), Next::At(at(7), cap));
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
