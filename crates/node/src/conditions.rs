use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};

use crate::pressure::Shortage;

/// The type of the condition that decides whether pods may come.
pub(crate) const READY: &str = "Ready";

/// The type of the condition that says that sandboxes lack layers of confinement.
const UNCONFINED: &str = "nodule.dev/SandboxUnconfined";

/// One condition of ours as it is to be, without its times.
struct Wanted {
    type_: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// The kubelet's four conditions, Ready last, and before it ours where it has or had something to say. A transition time
/// is kept from `previous` while the status is the same.
pub(crate) fn conditions(
    problems: &[String],
    unconfined: &BTreeSet<String>,
    shortage: Shortage,
    previous: &[NodeCondition],
    now: &Time,
) -> Vec<NodeCondition> {
    let told = previous.iter().any(|condition| condition.type_ == UNCONFINED);
    [memory(shortage.memory), disk(shortage.disk), pids(shortage.pids)]
        .into_iter()
        .chain((told || !unconfined.is_empty()).then(|| confinement(unconfined)))
        .chain([ready(problems)])
        .map(|wanted| dated(wanted, previous, now))
        .collect()
}

/// The reason of the event that tells of a transition, and whether it is a warning. `None`: nobody is told.
pub(crate) fn transition(condition: &NodeCondition) -> Option<&'static str> {
    match (condition.type_.as_str(), condition.status == "True") {
        (READY, true) => Some("NodeReady"),
        (READY, false) => Some("NodeNotReady"),
        ("MemoryPressure", true) => Some("NodeHasInsufficientMemory"),
        ("MemoryPressure", false) => Some("NodeHasSufficientMemory"),
        ("DiskPressure", true) => Some("NodeHasDiskPressure"),
        ("DiskPressure", false) => Some("NodeHasNoDiskPressure"),
        ("PIDPressure", true) => Some("NodeHasInsufficientPID"),
        ("PIDPressure", false) => Some("NodeHasSufficientPID"),
        _ => None,
    }
}

/// Whether pods run with less around them than they could have.
fn confinement(missing: &BTreeSet<String>) -> Wanted {
    let names: Vec<_> = missing.iter().map(String::as_str).collect();
    let (reason, message) = if missing.is_empty() {
        ("EveryLayer", "sandboxes have every layer of confinement".to_owned())
    } else {
        ("LayersMissing", format!("sandboxes are not confined by: {}", names.join(", ")))
    };
    Wanted { type_: UNCONFINED, status: !missing.is_empty(), reason, message }
}

fn ready(problems: &[String]) -> Wanted {
    if problems.is_empty() {
        Wanted {
            type_: READY,
            status: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".into(),
        }
    } else {
        Wanted {
            type_: READY,
            status: false,
            reason: "KubeletNotReady",
            message: aggregate(problems),
        }
    }
}

/// One problem stands for itself; several stand in brackets.
fn aggregate(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn memory(short: bool) -> Wanted {
    let (reason, message) = if short {
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
    } else {
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
    };
    Wanted { type_: "MemoryPressure", status: short, reason, message: message.into() }
}

fn disk(short: bool) -> Wanted {
    let (reason, message) = if short {
        ("KubeletHasDiskPressure", "kubelet has disk pressure")
    } else {
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")
    };
    Wanted { type_: "DiskPressure", status: short, reason, message: message.into() }
}

fn pids(short: bool) -> Wanted {
    let (reason, message) = if short {
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available")
    } else {
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available")
    };
    Wanted { type_: "PIDPressure", status: short, reason, message: message.into() }
}

fn dated(wanted: Wanted, previous: &[NodeCondition], now: &Time) -> NodeCondition {
    let status = if wanted.status { "True" } else { "False" };
    let since = previous
        .iter()
        .find(|condition| condition.type_ == wanted.type_ && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    NodeCondition {
        type_: wanted.type_.to_owned(),
        status: status.to_owned(),
        reason: Some(wanted.reason.to_owned()),
        message: Some(wanted.message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_healthy_node_has_the_contracts_reasons_in_order() {
        let conditions = conditions(&[], &BTreeSet::new(), Shortage::default(), &[], &at(1));
        let seen: Vec<_> = conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap()))
            .collect();
        let expected = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID"),
            ("Ready", "True", "KubeletReady"),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn every_shortage_has_its_reason() {
        let shortage = Shortage { memory: true, disk: true, pids: true };
        let reasons: Vec<_> = conditions(&[], &BTreeSet::new(), shortage, &[], &at(1))
            .into_iter()
            .filter_map(|c| c.reason)
            .take(3)
            .collect();
        assert_eq!(
            reasons,
            ["KubeletHasInsufficientMemory", "KubeletHasDiskPressure", "KubeletHasInsufficientPID"]
        );
    }

    #[test]
    fn missing_layers_are_named_and_taken_back() {
        let layers = BTreeSet::from(["landlock".to_owned(), "user".to_owned()]);
        let find = |missing: &BTreeSet<String>, previous: &[NodeCondition]| {
            conditions(&[], missing, Shortage::default(), previous, &at(1))
                .into_iter()
                .find(|condition| condition.type_ == UNCONFINED)
        };
        assert_eq!(find(&BTreeSet::new(), &[]), None);
        let said = find(&layers, &[]).unwrap();
        assert_eq!(
            (said.status.as_str(), said.message.as_deref()),
            ("True", Some("sandboxes are not confined by: landlock, user"))
        );
        assert_eq!(find(&BTreeSet::new(), &[said]).unwrap().status, "False");
    }

    #[test]
    fn problems_are_the_message_of_not_ready() {
        for (problems, message) in [(vec!["a"], "a"), (vec!["a", "b"], "[a, b]")] {
            let problems: Vec<_> = problems.into_iter().map(str::to_owned).collect();
            let ready = conditions(&problems, &BTreeSet::new(), Shortage::default(), &[], &at(1))
                .pop()
                .unwrap();
            assert_eq!(
                (ready.status.as_str(), ready.reason.as_deref()),
                ("False", Some("KubeletNotReady"))
            );
            assert_eq!(ready.message.as_deref(), Some(message));
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = conditions(&[], &BTreeSet::new(), Shortage::default(), &[], &at(1));
        let same = conditions(&[], &BTreeSet::new(), Shortage::default(), &first, &at(2));
        assert_eq!(
            (&same[3].last_transition_time, &same[3].last_heartbeat_time),
            (&Some(at(1)), &Some(at(2)))
        );
        let other =
            conditions(&["no".to_owned()], &BTreeSet::new(), Shortage::default(), &same, &at(3));
        assert_eq!(other[3].last_transition_time, Some(at(3)));
        assert_eq!(other[0].last_transition_time, Some(at(1)));
    }

    #[test]
    fn every_condition_of_ours_has_an_event_for_each_way() {
        for shortage in [Shortage::default(), Shortage { memory: true, disk: true, pids: true }] {
            for condition in conditions(&[], &BTreeSet::new(), shortage, &[], &at(1)) {
                assert!(transition(&condition).is_some(), "{condition:?}");
            }
        }
    }
}
