use std::time::Duration;

use tokio::time::Instant;

use crate::{config::Thresholds, limit::Limit, machine::Measure};

/// A resource of the node's that pods are evicted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of memory.
    Memory,
    /// Bytes of the disk.
    Storage,
    /// Inodes of the disk.
    Inodes,
    /// Process ids.
    Pids,
}

/// Of this resource less is left than an eviction threshold asks for; amounts in its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starved {
    /// Which.
    pub resource: Resource,
    /// What must be left.
    pub threshold: u64,
    /// What is.
    pub available: u64,
    /// What must be before nothing is done for it any more: the threshold and the minimum to be reclaimed.
    pub wanted: u64,
    /// The threshold is a soft one: so many seconds a pod has at most to end (`evictionMaxPodGracePeriod`).
    pub longest_grace: Option<u64>,
}

/// What the node is short of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

/// What the node is measured against, and when each shortage was last seen: one that has gone is shown a while longer, so that
/// pods do not come back too soon.
#[derive(Debug)]
pub(crate) struct Pressure {
    limits: Vec<Limit>,
    /// Seconds.
    longest_grace: u64,
    memory: Option<Instant>,
    disk: Option<Instant>,
    pids: Option<Instant>,
}

impl Pressure {
    pub(crate) fn new(thresholds: &Thresholds) -> Self {
        Self {
            limits: Limit::all(thresholds),
            longest_grace: thresholds.longest_grace,
            memory: None,
            disk: None,
            pids: None,
        }
    }

    /// Takes a measure into account; says what to show. A shortage is shown until `hold` after it was last seen.
    pub(crate) fn observe(&mut self, measure: &Measure, at: Instant, hold: Duration) -> Shortage {
        self.limits.iter_mut().for_each(|limit| limit.observe(measure, at));
        let short = |resource| self.limits.iter().any(|limit| limit.is_short_of(resource));
        let (memory, pids) = (short(Resource::Memory), short(Resource::Pids));
        let disk = short(Resource::Storage) || short(Resource::Inodes);
        Shortage {
            memory: shown(&mut self.memory, memory, at, hold),
            disk: shown(&mut self.disk, disk, at, hold),
            pids: shown(&mut self.pids, pids, at, hold),
        }
    }

    /// Every resource that pods are evicted for by this measure, which was the last observed: memory first, as the kubelet looks
    /// at it first. A hard threshold goes before soft ones, and of those the highest counts.
    pub(crate) fn starved(&self, measure: &Measure) -> Vec<Starved> {
        let of = |resource| {
            let met = self.limits.iter().filter_map(|one| one.starved(measure, self.longest_grace));
            let met = met.filter(|starved| starved.resource == resource);
            met.max_by_key(|starved| (starved.longest_grace.is_none(), starved.threshold))
        };
        let order = [Resource::Memory, Resource::Storage, Resource::Inodes, Resource::Pids];
        order.into_iter().filter_map(of).collect()
    }
}

fn shown(seen: &mut Option<Instant>, now: bool, at: Instant, hold: Duration) -> bool {
    if now {
        *seen = Some(at);
    }
    seen.is_some_and(|seen| now || at.duration_since(seen) < hold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Amount, Soft},
        machine::Level,
    };

    const HOLD: Duration = Duration::from_secs(300);

    fn level(available: u64) -> Option<Level> {
        Some(Level { capacity: 1000, available })
    }

    #[test]
    fn a_node_is_short_of_what_lies_below_a_threshold() {
        let thresholds = Thresholds {
            memory: Some(Amount::Units(100)),
            storage: vec![Amount::Share(0.10), Amount::Share(0.15)],
            pids: None,
            ..Thresholds::default()
        };
        let measure = |memory, storage, inodes| Measure {
            memory: level(memory),
            storage: level(storage),
            inodes: level(inodes),
            pids: level(0),
            ..Measure::default()
        };
        let table = [
            (measure(100, 150, 50), Shortage::default()),
            (measure(99, 150, 50), Shortage { memory: true, ..Shortage::default() }),
            (measure(100, 149, 50), Shortage { disk: true, ..Shortage::default() }),
            (measure(100, 150, 49), Shortage { disk: true, ..Shortage::default() }),
            (Measure::default(), Shortage::default()),
        ];
        for (measure, expected) in table {
            let found = Pressure::new(&thresholds).observe(&measure, Instant::now(), HOLD);
            assert_eq!(found, expected, "{measure:?}");
        }
    }

    fn soft(resource: Resource, units: u64) -> Soft {
        Soft { resource, amount: Amount::Units(units), grace: Duration::ZERO }
    }

    #[test]
    fn a_starved_resource_is_told_with_its_highest_hard_threshold_or_else_its_highest_soft_one() {
        let thresholds = Thresholds {
            memory: Some(Amount::Units(100)),
            storage: vec![Amount::Share(0.10), Amount::Share(0.15)],
            soft: vec![soft(Resource::Storage, 500), soft(Resource::Inodes, 950)],
            longest_grace: 20,
            reclaim: vec![(Resource::Storage, Amount::Units(7))],
            ..Thresholds::default()
        };
        let measure = Measure {
            memory: level(90),
            storage: level(90),
            inodes: level(900),
            ..Measure::default()
        };
        let wanted = [
            (Resource::Memory, 100, 90, 100, None),
            (Resource::Storage, 150, 90, 157, None),
            (Resource::Inodes, 950, 900, 950, Some(20)),
        ]
        .map(|(resource, threshold, available, wanted, longest_grace)| Starved {
            resource,
            threshold,
            available,
            wanted,
            longest_grace,
        });
        let mut pressure = Pressure::new(&thresholds);
        pressure.observe(&measure, Instant::now(), HOLD);
        assert_eq!(pressure.starved(&measure), wanted);
    }

    #[test]
    fn a_shortage_is_shown_for_a_while_after_it_has_gone() {
        let start = Instant::now();
        let mut pressure = Pressure::new(&Thresholds {
            memory: Some(Amount::Units(100)),
            ..Thresholds::default()
        });
        for (seconds, available, shown) in
            [(0, 100, false), (10, 99, true), (309, 100, true), (310, 100, false)]
        {
            let measure = Measure { memory: level(available), ..Measure::default() };
            let found = pressure.observe(&measure, start + Duration::from_secs(seconds), HOLD);
            assert_eq!(found.memory, shown, "{seconds}");
        }
    }
}
