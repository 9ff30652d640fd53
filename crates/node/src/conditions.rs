use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};

use crate::pressure::Shortage;

/// The type of the condition that decides whether pods may come.
pub(crate) const READY: &str = "Ready";

/// One condition of ours as it is to be, without its times.
struct Wanted {
    type_: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// Our four conditions, Ready last. A transition time is kept from `previous` while the status is the same.
pub(crate) fn conditions(
    problems: &[String],
    shortage: Shortage,
    previous: &[NodeCondition],
    now: &Time,
) -> Vec<NodeCondition> {
    [memory(shortage.memory), disk(shortage.disk), pids(shortage.pids), ready(problems)]
        .into_iter()
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
        let conditions = conditions(&[], Shortage::default(), &[], &at(1));
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
        let reasons: Vec<_> = conditions(&[], shortage, &[], &at(1))
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
    fn problems_are_the_message_of_not_ready() {
        for (problems, message) in [(vec!["a"], "a"), (vec!["a", "b"], "[a, b]")] {
            let problems: Vec<_> = problems.into_iter().map(str::to_owned).collect();
            let ready = conditions(&problems, Shortage::default(), &[], &at(1)).pop().unwrap();
            assert_eq!(
                (ready.status.as_str(), ready.reason.as_deref()),
                ("False", Some("KubeletNotReady"))
            );
            assert_eq!(ready.message.as_deref(), Some(message));
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = conditions(&[], Shortage::default(), &[], &at(1));
        let same = conditions(&[], Shortage::default(), &first, &at(2));
        assert_eq!(
            (&same[3].last_transition_time, &same[3].last_heartbeat_time),
            (&Some(at(1)), &Some(at(2)))
        );
        let other = conditions(&["no".to_owned()], Shortage::default(), &same, &at(3));
        assert_eq!(other[3].last_transition_time, Some(at(3)));
        assert_eq!(other[0].last_transition_time, Some(at(1)));
    }

    #[test]
    fn every_condition_of_ours_has_an_event_for_each_way() {
        for shortage in [Shortage::default(), Shortage { memory: true, disk: true, pids: true }] {
            for condition in conditions(&[], shortage, &[], &at(1)) {
                assert!(transition(&condition).is_some(), "{condition:?}");
            }
        }
    }
}
