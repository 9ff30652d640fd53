use std::time::Duration;

use tokio::time::Instant;

use crate::{
    config::{Amount, Thresholds},
    machine::{Level, Measure},
};

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

/// Of this resource less is left than a hard eviction threshold asks for; amounts in its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starved {
    /// Which.
    pub resource: Resource,
    /// What must be left.
    pub threshold: u64,
    /// What is.
    pub available: u64,
}

/// What the node is short of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

/// When each shortage was last seen: one that has gone is shown a while longer, so that pods do not come back too soon.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    memory: Option<Instant>,
    disk: Option<Instant>,
    pids: Option<Instant>,
}

impl Pressure {
    /// Takes a measure into account; says what to show. A shortage is shown until `hold` after it was last seen.
    pub(crate) fn observe(&mut self, now: Shortage, at: Instant, hold: Duration) -> Shortage {
        Shortage {
            memory: shown(&mut self.memory, now.memory, at, hold),
            disk: shown(&mut self.disk, now.disk, at, hold),
            pids: shown(&mut self.pids, now.pids, at, hold),
        }
    }
}

/// What the measure falls short of. What could not be measured is not short.
pub(crate) fn shortage(measure: &Measure, thresholds: &Thresholds) -> Shortage {
    Shortage {
        memory: below(measure.memory, thresholds.memory.as_slice()),
        disk: below(measure.storage, &thresholds.storage)
            || below(measure.inodes, &thresholds.inodes),
        pids: below(measure.pids, thresholds.pids.as_slice()),
    }
}

/// Every resource of which less is left than the measure should show, with the highest threshold that is not met; memory first,
/// as the kubelet looks at it first.
pub(crate) fn starved(measure: &Measure, thresholds: &Thresholds) -> Vec<Starved> {
    let of = |resource, level: Option<Level>, amounts: &[Amount]| {
        let level = level?;
        let unmet = amounts.iter().map(|amount| amount.of(level.capacity));
        let threshold = unmet.filter(|threshold| level.available < *threshold).max()?;
        Some(Starved { resource, threshold, available: level.available })
    };
    let all = [
        of(Resource::Memory, measure.memory, thresholds.memory.as_slice()),
        of(Resource::Storage, measure.storage, &thresholds.storage),
        of(Resource::Inodes, measure.inodes, &thresholds.inodes),
        of(Resource::Pids, measure.pids, thresholds.pids.as_slice()),
    ];
    all.into_iter().flatten().collect()
}

fn below(level: Option<Level>, thresholds: &[Amount]) -> bool {
    level.is_some_and(|level| {
        thresholds.iter().any(|amount| level.available < amount.of(level.capacity))
    })
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
            assert_eq!(shortage(&measure, &thresholds), expected, "{measure:?}");
        }
    }

    #[test]
    fn a_starved_resource_is_told_with_the_highest_threshold_that_is_not_met() {
        let thresholds = Thresholds {
            memory: Some(Amount::Units(100)),
            storage: vec![Amount::Share(0.10), Amount::Share(0.15)],
            ..Thresholds::default()
        };
        let measure = Measure {
            memory: level(90),
            storage: level(90),
            inodes: level(900),
            ..Measure::default()
        };
        let wanted = [
            Starved { resource: Resource::Memory, threshold: 100, available: 90 },
            Starved { resource: Resource::Storage, threshold: 150, available: 90 },
        ];
        assert_eq!(starved(&measure, &thresholds), wanted);
    }

    #[test]
    fn a_shortage_is_shown_for_a_while_after_it_has_gone() {
        let (start, hold) = (Instant::now(), Duration::from_secs(300));
        let at = |seconds| start + Duration::from_secs(seconds);
        let (short, fine) = (Shortage { memory: true, ..Shortage::default() }, Shortage::default());
        let mut pressure = Pressure::default();
        assert_eq!(pressure.observe(fine, at(0), hold), fine);
        assert_eq!(pressure.observe(short, at(10), hold), short);
        assert_eq!(pressure.observe(fine, at(309), hold), short);
        assert_eq!(pressure.observe(fine, at(310), hold), fine);
    }
}
