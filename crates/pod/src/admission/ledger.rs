//! What the pods of this node have been promised.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

use super::claim::{Amounts, Claim, count};
use super::{port_taken, preempt};
use crate::failure::Failure;

/// The claims of the pods that were taken on and have not ended, by UID.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    /// Says each time that something was given back.
    freed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Book {
    claims: BTreeMap<String, Claim>,
    /// Those of pods that are removed and have not ended yet.
    leaving: BTreeSet<String>,
    /// What pods among these would have instead, and there was no room for.
    growing: BTreeMap<String, Claim>,
}

/// Whether a pod may have another share of the node than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Growth {
    /// It has it from now on.
    Given,
    /// Others have it, or are to have it first.
    Later(String),
    /// The node does not have so much.
    Never(String),
}

/// Whether there is room for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is, and it is the pod's from now on.
    Given,
    /// There will be, when these pods have ended.
    After(Vec<String>),
    /// There will be, when pods have ended that are removed already.
    Soon,
    /// There is none.
    None(Failure),
}

impl Ledger {
    /// Asks for room. A pod that is promised some once others have ended holds it from now on: what becomes free goes to no
    /// third one. May be asked again.
    pub(crate) fn take(&self, uid: &str, claim: &Claim, node: &Node) -> Room {
        let mut book = self.lock();
        let others = book.others(uid);
        let mut stay = others.clone();
        stay.retain(|other, _| !book.leaving.contains(*other));
        let now = room(claim, &others, node);
        let leave = now != Room::Given && stay.len() < others.len();
        let room = if leave && room(claim, &stay, node) == Room::Given { Room::Soon } else { now };
        if !matches!(room, Room::None(_)) {
            book.claims.insert(uid.to_owned(), claim.clone());
        }
        room
    }

    /// The API server has the pod no more, and its scheduler has given away what the pod had; but it has not ended.
    pub(crate) fn leave(&self, uid: &str) {
        let mut book = self.lock();
        if book.claims.contains_key(uid) {
            book.leaving.insert(uid.to_owned());
        }
    }

    /// Notes the claim of a pod that an earlier agent took on.
    pub(crate) fn recall(&self, uid: &str, claim: Claim) {
        self.lock().claims.insert(uid.to_owned(), claim);
    }

    /// Asks for another share than the pod has. What is freed goes to pods of higher priority first, then to the better class of
    /// service (KEP-1287). May be asked again.
    pub(crate) fn grow(&self, uid: &str, claim: &Claim, node: &Node) -> Growth {
        let mut book = self.lock();
        if let Some(short) = shortage(&more(claim, book.claims.get(uid)), &[], node).first() {
            book.growing.remove(uid);
            return Growth::Never(short.told("capacity"));
        }
        book.growing.insert(uid.to_owned(), claim.clone());
        let mut claims = book.claims.clone();
        for (next, wanted) in book.by_rank() {
            let others: Vec<&Claim> = claims
                .iter()
                .filter(|(other, _)| **other != next)
                .map(|(_, claim)| claim)
                .collect();
            let short = shortage(&more(&wanted, claims.get(&next)), &others, node);
            match short.first() {
                Some(short) if next == uid => return Growth::Later(short.told("resource")),
                Some(_) => {}
                None if next == uid => {
                    book.growing.remove(uid);
                    book.claims.insert(next, wanted);
                    return Growth::Given;
                }
                None => {
                    claims.insert(next, wanted);
                }
            }
        }
        Growth::Given
    }

    /// The pod does not want another share any more.
    pub(crate) fn withdraw(&self, uid: &str) {
        if self.lock().growing.remove(uid).is_some() {
            self.freed.send_replace(());
        }
    }

    /// Changes each time that something was given back.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// The pod has ended.
    pub(crate) fn release(&self, uid: &str) {
        let mut book = self.lock();
        book.growing.remove(uid);
        book.leaving.remove(uid);
        if book.claims.remove(uid).is_some() {
            self.freed.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// What all but one pod have.
    fn others(&self, uid: &str) -> BTreeMap<&String, &Claim> {
        self.claims.iter().filter(|(other, _)| *other != uid).collect()
    }

    /// Who comes first where there is not enough for all.
    fn by_rank(&self) -> Vec<(String, Claim)> {
        let mut all: Vec<_> =
            self.growing.iter().map(|(uid, claim)| (uid.clone(), claim.clone())).collect();
        all.sort_by_key(|(_, claim)| (Reverse(claim.priority), claim.qos));
        all
    }
}

/// Whether there is room beside these others.
fn room(claim: &Claim, others: &BTreeMap<&String, &Claim>, node: &Node) -> Room {
    let short = shortage(claim, &others.values().copied().collect::<Vec<_>>(), node);
    let busy = others.values().any(|other| collides(claim, other));
    match short.first() {
        None if busy => Room::None(port_taken()),
        None => Room::Given,
        Some(first) => {
            let missing = short.iter().map(|short| (short.name.clone(), short.missing()));
            let victims = preempt::victims(claim, others, &missing.collect());
            victims.filter(|_| !busy).map_or_else(|| Room::None(first.failure()), Room::After)
        }
    }
}

/// A claim to what is more than before: nobody is refused for the sake of what it has.
fn more(claim: &Claim, before: Option<&Claim>) -> Claim {
    let had = |name: &str| before.and_then(|before| before.amounts.get(name)).copied().unwrap_or(0);
    let mut claim = claim.clone();
    claim.amounts.retain(|name, amount| *amount > had(name));
    claim
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

    /// The kubelet's words for a resize.
    fn told(&self, what: &str) -> String {
        let Self { name, asked, used, capacity } = self;
        let used = if what == "capacity" { String::new() } else { format!(", used: {used}") };
        format!(
            "Node didn't have enough {what}: {name}, requested: {asked}{used}, capacity: {capacity}"
        )
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
            Room::Soon => "soon".to_owned(),
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
    fn a_pod_grows_when_there_is_room_and_the_more_important_first() {
        let ledger = Ledger::default();
        let cpus = |cpus: u64, priority: i32| claim(&[("pods", 1), ("cpu", cpus)], priority, false);
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            ledger.take(uid, &cpus(600, priority), &node());
        }
        let later = |used: u64| {
            Growth::Later(format!(
                "Node didn't have enough resource: cpu, requested: 1300, used: {used}, capacity: 2000"
            ))
        };
        let never = "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000";
        assert_eq!(ledger.grow("a", &cpus(2001, 0), &node()), Growth::Never(never.to_owned()));
        assert_eq!(ledger.grow("a", &cpus(1300, 0), &node()), later(1200));
        assert_eq!(ledger.grow("b", &cpus(1300, 5), &node()), later(1200));
        let mut freed = ledger.freed();
        ledger.release("c");
        assert!(freed.has_changed().unwrap());
        freed.mark_unchanged();
        // There is room for one of them, and it is kept for `b`.
        assert_eq!(ledger.grow("a", &cpus(1300, 0), &node()), later(1300));
        assert_eq!(ledger.grow("b", &cpus(1300, 5), &node()), Growth::Given);
        assert_eq!(ledger.grow("a", &cpus(1300, 0), &node()), later(1300));
        // Less is always had, and leaves room for others.
        assert_eq!(ledger.grow("b", &cpus(100, 5), &node()), Growth::Given);
        assert_eq!(ledger.grow("a", &cpus(1300, 0), &node()), Growth::Given);
        ledger.withdraw("a");
        assert!(!freed.has_changed().unwrap());
    }

    #[test]
    fn what_a_removed_pod_still_has_is_waited_for_and_kept_for_who_waits() {
        let ledger = Ledger::default();
        let port = |number: i32| Claim {
            ports: [("TCP".to_owned(), "0.0.0.0".to_owned(), number)].into(),
            ..claim(&[("pods", 1), ("cpu", 1200)], 0, false)
        };
        let asked = |uid: &str, number: i32| reason(&ledger.take(uid, &port(number), &node()));
        assert_eq!(asked("old", 80), "given");
        assert_eq!(asked("new", 80), "OutOfcpu", "it has not been removed");
        ledger.leave("old");
        ledger.leave("unknown");
        assert_eq!(asked("new", 80), "soon");
        assert_eq!(asked("third", 80), "OutOfcpu", "what is freed is for the one that waits");
        ledger.release("old");
        assert_eq!(asked("new", 80), "given");
        assert_eq!(asked("third", 81), "OutOfcpu");
        ledger.release("new");
        assert_eq!(asked("third", 81), "given");
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
