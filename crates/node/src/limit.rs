use std::time::Duration;

use tokio::time::Instant;

use crate::{
    config::{Amount, Soft, Thresholds},
    machine::{Level, Measure},
    pressure::{Resource, Starved},
};

/// A threshold, and since when the node is below it (the kubelet's `eviction/eviction_manager.go`, `synchronize`).
#[derive(Debug)]
pub(crate) struct Limit {
    resource: Resource,
    amount: Amount,
    /// What must be free beyond the amount before an eviction that has begun is over.
    reclaim: Vec<Amount>,
    /// None: a hard threshold.
    soft: Option<Soft>,
    since: Option<Instant>,
    /// Pods are evicted for it.
    met: bool,
}

impl Limit {
    /// The hard thresholds and then the soft ones.
    pub(crate) fn all(thresholds: &Thresholds) -> Vec<Self> {
        let hard = |resource, amounts: &[Amount]| {
            amounts.iter().map(move |amount| (resource, *amount, None)).collect::<Vec<_>>()
        };
        let hard = [
            hard(Resource::Memory, thresholds.memory.as_slice()),
            hard(Resource::Storage, &thresholds.storage),
            hard(Resource::Inodes, &thresholds.inodes),
            hard(Resource::Pids, thresholds.pids.as_slice()),
        ];
        let soft = thresholds.soft.iter().map(|soft| (soft.resource, soft.amount, Some(*soft)));
        let all = hard.into_iter().flatten().chain(soft);
        all.map(|(resource, amount, soft)| Self {
            resource,
            amount,
            reclaim: reclaim(thresholds, resource),
            soft,
            since: None,
            met: false,
        })
        .collect()
    }

    /// Takes a measure into account. What could not be measured is not short.
    pub(crate) fn observe(&mut self, measure: &Measure, at: Instant) {
        let short = self.level(measure).is_some_and(|level| level.available < self.wanted(level));
        self.since = short.then(|| self.since.unwrap_or(at));
        let grace = self.soft.map_or(Duration::ZERO, |soft| soft.grace);
        self.met = self.since.is_some_and(|since| at.duration_since(since) >= grace);
    }

    /// Whether the node shows that it is short of this. A soft threshold is shown before its grace period is over.
    pub(crate) fn is_short_of(&self, resource: Resource) -> bool {
        self.resource == resource && self.since.is_some()
    }

    /// What pods are evicted for, if they are.
    pub(crate) fn starved(&self, measure: &Measure, longest_grace: u64) -> Option<Starved> {
        let level = self.level(measure).filter(|_| self.met)?;
        Some(Starved {
            resource: self.resource,
            threshold: self.amount.of(level.capacity),
            available: level.available,
            wanted: self.wanted(level),
            longest_grace: self.soft.map(|_| longest_grace),
        })
    }

    fn level(&self, measure: &Measure) -> Option<Level> {
        match self.resource {
            Resource::Memory => measure.memory,
            Resource::Storage => measure.storage,
            Resource::Inodes => measure.inodes,
            Resource::Pids => measure.pids,
        }
    }

    /// What must be free now.
    fn wanted(&self, level: Level) -> u64 {
        let threshold = self.amount.of(level.capacity);
        let reclaim = self.reclaim.iter().map(|amount| amount.of(level.capacity)).max();
        threshold.saturating_add(reclaim.filter(|_| self.met).unwrap_or(0))
    }
}

fn reclaim(thresholds: &Thresholds, resource: Resource) -> Vec<Amount> {
    let of = thresholds.reclaim.iter().filter(|(other, _)| *other == resource);
    of.map(|(_, amount)| *amount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(available: u64) -> Measure {
        Measure { memory: Some(Level { capacity: 1000, available }), ..Measure::default() }
    }

    /// Each step: seconds, what is available, whether the node is short, whether pods are evicted.
    fn follow(thresholds: &Thresholds, steps: &[(u64, u64, bool, bool)]) {
        let mut limit = Limit::all(thresholds).into_iter().next().unwrap();
        let start = Instant::now();
        for &(seconds, available, short, evicts) in steps {
            let measure = measure(available);
            limit.observe(&measure, start + Duration::from_secs(seconds));
            let found = (limit.is_short_of(Resource::Memory), limit.starved(&measure, 7).is_some());
            assert_eq!(found, (short, evicts), "{seconds} s, {available}");
        }
    }

    fn none() -> Thresholds {
        Thresholds {
            memory: None,
            storage: Vec::new(),
            inodes: Vec::new(),
            ..Thresholds::default()
        }
    }

    #[test]
    fn pods_are_evicted_for_a_soft_threshold_when_its_grace_period_is_over_without_relief() {
        let grace = Duration::from_secs(30);
        let soft = Soft { resource: Resource::Memory, amount: Amount::Units(100), grace };
        let thresholds = Thresholds { soft: vec![soft], ..none() };
        follow(
            &thresholds,
            &[
                (0, 99, true, false),
                (29, 99, true, false),
                (30, 100, false, false),
                (40, 99, true, false),
                (69, 99, true, false),
                (70, 99, true, true),
                (80, 100, false, false),
                (90, 99, true, false),
            ],
        );
        let mut limit = Limit::all(&thresholds).pop().unwrap();
        limit.observe(&measure(1), Instant::now());
        limit.observe(&measure(1), Instant::now() + grace);
        assert_eq!(limit.starved(&measure(1), 7).unwrap().longest_grace, Some(7));
    }

    #[test]
    fn an_eviction_goes_on_until_the_minimum_is_reclaimed() {
        let reclaim =
            vec![(Resource::Memory, Amount::Units(50)), (Resource::Pids, Amount::Units(900))];
        let thresholds = Thresholds { memory: Some(Amount::Units(100)), reclaim, ..none() };
        follow(
            &thresholds,
            &[
                (0, 100, false, false),
                (1, 99, true, true),
                (2, 149, true, true),
                (3, 150, false, false),
                (4, 149, false, false),
            ],
        );
    }
}
