//! What the pods of this node have been promised.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Node;

use super::claim::{Amounts, Claim, count};
use super::{port_taken, preempt};
use crate::failure::Failure;

/// The claims of the pods that were taken on and have not ended, by UID.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    claims: Mutex<BTreeMap<String, Claim>>,
}

/// Whether there is room for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is, and it is the pod's from now on.
    Given,
    /// There will be, when these pods have ended.
    After(Vec<String>),
    /// There is none.
    None(Failure),
}

impl Ledger {
    /// Asks for room. A pod that is promised some once others have ended holds it from now on: what becomes free goes to no
    /// third one. May be asked again.
    pub(crate) fn take(&self, uid: &str, claim: &Claim, node: &Node) -> Room {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let others: BTreeMap<&String, &Claim> =
            claims.iter().filter(|(other, _)| *other != uid).collect();
        let short = shortage(claim, &others.values().copied().collect::<Vec<_>>(), node);
        let busy = others.values().any(|other| collides(claim, other));
        let room = match short.first() {
            None if busy => Room::None(port_taken()),
            None => Room::Given,
            Some(first) => {
                let missing = short.iter().map(|short| (short.name.clone(), short.missing()));
                let victims = preempt::victims(claim, &others, &missing.collect());
                victims.filter(|_| !busy).map_or_else(|| Room::None(first.failure()), Room::After)
            }
        };
        if !matches!(room, Room::None(_)) {
            claims.insert(uid.to_owned(), claim.clone());
        }
        room
    }

    /// Notes the claim of a pod that an earlier agent took on.
    pub(crate) fn recall(&self, uid: &str, claim: Claim) {
        self.lock().insert(uid.to_owned(), claim);
    }

    /// The pod has ended.
    pub(crate) fn release(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resource that there is too little of.
struct Short {
    name: String,
    asked: u64,
    used: u64,
    capacity: u64,
}

impl Short {
    fn missing(&self) -> u64 {
        self.used.saturating_add(self.asked).saturating_sub(self.capacity)
    }

    fn failure(&self) -> Failure {
        let Self { name, asked, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
        );
        Failure::rejected(&format!("OutOf{name}"), &message)
    }
}

/// The first in the order of the scheduler's `Fits`: pods, cpu, memory, storage, then by name. Resources of others that this
/// node does not have are theirs to know.
fn shortage(claim: &Claim, others: &[&Claim], node: &Node) -> Vec<Short> {
    const ORDER: [&str; 4] = ["pods", "cpu", "memory", "ephemeral-storage"];
    let allocatable = allocatable(node);
    let used = |name: &str| {
        let all = others.iter().filter_map(|other| other.amounts.get(name).copied());
        all.fold(0, u64::saturating_add)
    };
    let short = |(name, asked): (&String, &u64)| {
        let capacity = allocatable.get(name).copied();
        if *asked == 0 || (capacity.is_none() && is_foreign(name)) {
            return None;
        }
        let short = Short {
            name: name.clone(),
            asked: *asked,
            used: used(name),
            capacity: capacity.unwrap_or(0),
        };
        (short.missing() > 0).then_some(short)
    };
    let mut all: Vec<Short> = claim.amounts.iter().filter_map(short).collect();
    all.sort_by_key(|short| {
        ORDER.iter().position(|name| *name == short.name).unwrap_or(usize::MAX)
    });
    all
}

fn allocatable(node: &Node) -> Amounts {
    let all = node.status.iter().flat_map(|status| status.allocatable.iter().flatten());
    all.filter_map(|(name, amount)| Some((name.clone(), count(name, amount)?))).collect()
}

/// An extended resource: its name has a domain that is not Kubernetes' own.
fn is_foreign(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

/// Whether two pods ask for one port: any address is every one.
fn collides(one: &Claim, other: &Claim) -> bool {
    one.ports.iter().any(|(kind, address, port)| {
        other.ports.iter().any(|(other_kind, other_address, other_port)| {
            let any = address == "0.0.0.0" || other_address == "0.0.0.0";
            kind == other_kind && port == other_port && (any || address == other_address)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {}, "status": {"allocatable":
            {"cpu": "2", "memory": "1Gi", "pods": "3"}}}))
        .unwrap()
    }

    fn claim(amounts: &[(&str, u64)], priority: i32, critical: bool) -> Claim {
        let amounts = amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
        Claim { amounts, priority, critical, ..Claim::default() }
    }

    fn reason(room: &Room) -> String {
        match room {
            Room::Given => "given".to_owned(),
            Room::After(uids) => format!("after {}", uids.join(" ")),
            Room::None(failure) => failure.reason.clone(),
        }
    }

    #[test]
    fn room_is_given_until_there_is_none_and_again_when_a_pod_has_ended() {
        let ledger = Ledger::default();
        let half = claim(&[("pods", 1), ("cpu", 1000)], 0, false);
        for (uid, wanted) in [("a", "given"), ("b", "given"), ("b", "given"), ("c", "OutOfcpu")] {
            assert_eq!(reason(&ledger.take(uid, &half, &node())), wanted, "{uid}");
        }
        let Room::None(failure) = ledger.take("c", &half, &node()) else { panic!("room") };
        assert_eq!(
            failure.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: 2000, capacity: 2000"
        );
        ledger.release("a");
        assert_eq!(reason(&ledger.take("c", &half, &node())), "given");
    }

    #[test]
    fn every_pod_counts_and_what_the_node_does_not_have_is_missing_unless_it_is_others() {
        let ledger = Ledger::default();
        for (uid, amount, wanted) in [
            ("a", ("cpu", 1), "given"),
            ("b", ("hugepages-2Mi", 1 << 21), "OutOfhugepages-2Mi"),
            ("c", ("example.com/gadget", 1), "given"),
            ("d", ("memory", 1 << 31), "OutOfmemory"),
            ("e", ("memory", 0), "given"),
            ("f", ("memory", 1), "OutOfpods"),
        ] {
            let claim = claim(&[("pods", 1), amount], 0, false);
            assert_eq!(reason(&ledger.take(uid, &claim, &node())), wanted, "{uid}");
        }
    }

    #[test]
    fn a_critical_pod_gets_room_from_others_and_holds_it_from_then_on() {
        let ledger = Ledger::default();
        let small = claim(&[("pods", 1), ("cpu", 900)], 0, false);
        ledger.take("a", &small, &node());
        ledger.take("b", &small, &node());
        let critical = claim(&[("pods", 1), ("cpu", 1000)], 2_000_000_000, true);
        assert_eq!(reason(&ledger.take("c", &critical, &node())), "after a");
        assert_eq!(
            reason(&ledger.take("d", &claim(&[("cpu", 100)], 0, false), &node())),
            "OutOfcpu"
        );
        ledger.release("a");
        assert_eq!(reason(&ledger.take("c", &critical, &node())), "given");
        let too_much = claim(&[("cpu", 3000)], 2_000_000_000, true);
        assert_eq!(reason(&ledger.take("e", &too_much, &node())), "OutOfcpu");
    }

    #[test]
    fn a_port_of_the_node_is_given_once() {
        let ledger = Ledger::default();
        let port = |address: &str| Claim {
            ports: [("TCP".to_owned(), address.to_owned(), 80)].into(),
            ..Claim::default()
        };
        for (uid, address, wanted) in [
            ("a", "10.0.0.1", "given"),
            ("b", "10.0.0.2", "given"),
            ("c", "10.0.0.1", "NodePorts"),
            ("d", "0.0.0.0", "NodePorts"),
        ] {
            assert_eq!(reason(&ledger.take(uid, &port(address), &node())), wanted, "{uid}");
        }
    }
}
