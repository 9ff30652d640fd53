//! Who makes room for a critical pod: as few and as little as will do, the least assured first (the kubelet's
//! `preemption/preemption.go`): pure.

use std::collections::BTreeMap;

use nodule_cgroup::Qos;

use super::claim::{Amounts, Claim};

/// The pods among `others` that must end so that what `claim` misses is there; none if it may not ask for that, or if it would
/// not be enough.
pub(super) fn victims(
    claim: &Claim,
    others: &BTreeMap<&String, &Claim>,
    missing: &Amounts,
) -> Option<Vec<String>> {
    if !claim.critical {
        return None;
    }
    let class = |qos: Qos| {
        let of_class =
            others.iter().filter(move |(_, other)| other.qos == qos && may_go(claim, other));
        of_class.map(|(uid, other)| (uid.as_str(), *other)).collect::<Vec<_>>()
    };
    let (best_effort, burstable, guaranteed) =
        (class(Qos::BestEffort), class(Qos::Burstable), class(Qos::Guaranteed));
    let without = |gone: &[&[(&str, &Claim)]]| less(missing, &gone.concat());
    if !without(&[&best_effort, &burstable, &guaranteed]).is_empty() {
        return None;
    }
    // From the best assured down: each only as far as all those below it would not do.
    let guaranteed = nearest(&guaranteed, without(&[&best_effort, &burstable]));
    let burstable = nearest(&burstable, without(&[&best_effort, &guaranteed]));
    let best_effort = nearest(&best_effort, without(&[&burstable, &guaranteed]));
    let all = [best_effort, burstable, guaranteed].concat();
    Some(all.into_iter().map(|(uid, _)| uid.to_owned()).collect())
}

fn may_go(claim: &Claim, other: &Claim) -> bool {
    !other.critical || claim.priority > other.priority
}

/// What is missing when these are gone.
fn less(missing: &Amounts, gone: &[(&str, &Claim)]) -> Amounts {
    let left = missing.iter().map(|(name, amount)| {
        let freed = gone.iter().filter_map(|(_, one)| one.amounts.get(name).copied());
        let freed = freed.fold(0, u64::saturating_add);
        (name.clone(), amount.saturating_sub(freed))
    });
    left.filter(|(_, amount)| *amount > 0).collect()
}

/// Those that come nearest to what is missing, one after the other until nothing is.
fn nearest<'a>(
    candidates: &[(&'a str, &'a Claim)],
    mut missing: Amounts,
) -> Vec<(&'a str, &'a Claim)> {
    let mut left = candidates.to_vec();
    let mut chosen = Vec::new();
    while !missing.is_empty() && !left.is_empty() {
        let rank = |one: &(&str, &Claim)| (distance(&missing, one.1), one.1.amounts.values().sum());
        let best = (0..left.len()).min_by_key(|place| left.get(*place).map_or((u64::MAX, 0), rank));
        let Some(best) = best else { break };
        let victim = left.swap_remove(best);
        missing = less(&missing, &[victim]);
        chosen.push(victim);
    }
    chosen
}

/// How far a pod is from freeing all that is missing: the squares of the shares that would still be, summed, in millionths.
fn distance(missing: &Amounts, claim: &Claim) -> u64 {
    let share = |(name, amount): (&String, &u64)| {
        let freed = claim.amounts.get(name).copied().unwrap_or(0);
        let left = u128::from(amount.saturating_sub(freed)) * 1000 / u128::from((*amount).max(1));
        u64::try_from(left * left).unwrap_or(u64::MAX)
    };
    missing.iter().map(share).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(qos: Qos, cpu: u64, memory: u64, critical: bool) -> Claim {
        let amounts = [("cpu".to_owned(), cpu), ("memory".to_owned(), memory)].into();
        Claim { amounts, qos, critical, ..Claim::default() }
    }

    #[test]
    fn the_least_assured_go_first_and_only_as_many_as_must() {
        let pods = [
            ("best", claim(Qos::BestEffort, 0, 0, false)),
            ("small", claim(Qos::Burstable, 100, 10, false)),
            ("large", claim(Qos::Burstable, 900, 90, false)),
            ("sure", claim(Qos::Guaranteed, 500, 500, false)),
            ("system", claim(Qos::Burstable, 5000, 5000, true)),
        ];
        let pods = pods.map(|(uid, claim)| (uid.to_owned(), claim));
        let others: BTreeMap<_, _> = pods.iter().map(|(uid, claim)| (uid, claim)).collect();
        let critical = claim(Qos::Guaranteed, 0, 0, true);
        for (cpu, memory, wanted) in [
            (50, 0, Some(&["small"][..])),
            (500, 0, Some(&["large"])),
            (1000, 0, Some(&["large", "small"])),
            (0, 400, Some(&["sure"])),
            (1400, 0, Some(&["large", "sure"])),
            (2000, 0, None),
        ] {
            let missing: Amounts = [("cpu", cpu), ("memory", memory)]
                .into_iter()
                .filter(|(_, amount)| *amount > 0)
                .map(|(name, amount)| (name.to_owned(), amount))
                .collect();
            let found = victims(&critical, &others, &missing);
            assert_eq!(
                found.as_deref().map(<[_]>::to_vec),
                wanted.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
                "{cpu} {memory}"
            );
        }
        assert_eq!(victims(&claim(Qos::Guaranteed, 0, 0, false), &others, &Amounts::new()), None);
    }
}
