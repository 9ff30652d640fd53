//! When the node evicts pods: `evictionHard`, `evictionSoft` and what belongs to them, by the kubelet's rules
//! (`eviction/helpers.go`, `ParseThresholdConfig`).

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nodule_node::{Amount, Resource, Soft, Thresholds, quantity};

use super::kubelet::Kubelet;

/// All thresholds, checked.
pub(super) fn thresholds(kubelet: &Kubelet) -> Result<Thresholds> {
    let hard = match kubelet.eviction_hard.as_ref().filter(|map| !map.is_empty()) {
        Some(map) => hard(map).context("field \"evictionHard\"")?,
        None => Thresholds::default(),
    };
    let reclaim = amounts(&kubelet.eviction_minimum_reclaim);
    let longest = u64::try_from(kubelet.eviction_max_pod_grace_period.unwrap_or(0));
    for signal in kubelet.eviction_soft_grace_period.keys() {
        resource(signal).context("field \"evictionSoftGracePeriod\"")?;
    }
    Ok(Thresholds {
        soft: soft(kubelet)?,
        reclaim: reclaim.context("field \"evictionMinimumReclaim\"")?.into_values().collect(),
        longest_grace: longest
            .map_err(|_| anyhow!("field \"evictionMaxPodGracePeriod\": use seconds, 0 or more"))?,
        ..hard
    })
}

/// `evictionHard`. If it is there, signals that it does not name are off.
fn hard(map: &BTreeMap<String, String>) -> Result<Thresholds> {
    let mut thresholds = Thresholds {
        memory: None,
        storage: Vec::new(),
        inodes: Vec::new(),
        storage_kept: None,
        pids: None,
        ..Thresholds::default()
    };
    for (signal, (resource, amount)) in amounts(map)? {
        match resource {
            Resource::Memory => thresholds.memory = Some(amount),
            Resource::Storage => thresholds.storage.push(amount),
            Resource::Inodes => thresholds.inodes.push(amount),
            Resource::Pids => thresholds.pids = Some(amount),
        }
        if signal == "nodefs.available" {
            thresholds.storage_kept = Some(amount);
        }
    }
    Ok(thresholds)
}

/// A soft threshold without a grace period makes no sense, and the kubelet does not start with one.
fn soft(kubelet: &Kubelet) -> Result<Vec<Soft>> {
    let amounts = amounts(&kubelet.eviction_soft).context("field \"evictionSoft\"")?;
    let soft = amounts.into_iter().map(|(signal, (resource, amount))| {
        let grace = kubelet.eviction_soft_grace_period.get(&signal);
        let grace = grace.with_context(|| {
            format!(
                "field \"evictionSoftGracePeriod\": add one for {signal}, which evictionSoft names"
            )
        })?;
        Ok(Soft { resource, amount, grace: grace.or(Duration::ZERO) })
    });
    soft.collect()
}

/// By signal. As for the kubelet, 0% and 100% switch a signal off.
fn amounts(map: &BTreeMap<String, String>) -> Result<BTreeMap<String, (Resource, Amount)>> {
    let on = map.iter().filter(|(_, text)| !matches!(text.as_str(), "0%" | "100%"));
    for signal in map.keys() {
        resource(signal)?;
    }
    on.map(|(signal, text)| {
        let amount = amount(text).with_context(|| signal.clone())?;
        Ok((signal.clone(), (resource(signal)?, amount)))
    })
    .collect()
}

/// What a signal measures. The node's file systems are one.
fn resource(signal: &str) -> Result<Resource> {
    Ok(match signal {
        "memory.available" => Resource::Memory,
        "nodefs.available" | "imagefs.available" | "containerfs.available" => Resource::Storage,
        "nodefs.inodesFree" | "imagefs.inodesFree" | "containerfs.inodesFree" => Resource::Inodes,
        "pid.available" => Resource::Pids,
        _ => bail!(
            "\"{signal}\" is no signal: use memory.available, nodefs.available, nodefs.inodesFree, \
             imagefs.available, imagefs.inodesFree or pid.available"
        ),
    })
}

fn amount(text: &str) -> Result<Amount> {
    let Some(percent) = text.strip_suffix('%') else {
        return Ok(Amount::Units(quantity::units(text)?));
    };
    let percent: f64 =
        percent.parse().map_err(|_| anyhow!("\"{text}\" is no percentage: use one such as 10%"))?;
    ensure!((0.0..=100.0).contains(&percent), "\"{text}\" is no percentage: use 0% to 100%");
    Ok(Amount::Share(percent / 100.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(fields: Value) -> Result<Thresholds> {
        thresholds(&serde_json::from_value(fields).unwrap())
    }

    #[test]
    fn hard_thresholds_that_are_not_named_are_off() {
        let hard = json!({"memory.available": "5%", "nodefs.available": "1Gi",
            "imagefs.available": "0%", "nodefs.inodesFree": "100%"});
        let expected = Thresholds {
            memory: Some(Amount::Share(0.05)),
            storage: vec![Amount::Units(1 << 30)],
            inodes: Vec::new(),
            storage_kept: Some(Amount::Units(1 << 30)),
            pids: None,
            ..Thresholds::default()
        };
        assert_eq!(read(json!({"evictionHard": hard})).unwrap(), expected);
        assert_eq!(read(json!({})).unwrap(), Thresholds::default());
    }

    /// The kubelet's `DefaultEvictionHard` (`k8s.io/kubernetes/pkg/kubelet/apis/config/v1beta1`), as a user would write it.
    #[test]
    fn defaults_are_what_the_kubelets_say_in_words() {
        let hard = json!({"memory.available": "100Mi", "nodefs.available": "10%",
            "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%"});
        let mut written = read(json!({"evictionHard": hard})).unwrap();
        written.storage.reverse();
        written.inodes.dedup();
        assert_eq!(written, Thresholds::default());
        assert_eq!(nodule_node::Periods::default().pressure, Duration::from_secs(5 * 60));
    }

    #[test]
    fn soft_thresholds_have_their_grace_and_all_their_minimum() {
        let found = read(json!({
            "evictionSoft": {"memory.available": "1Gi"},
            "evictionSoftGracePeriod": {"memory.available": "1m30s"},
            "evictionMinimumReclaim": {"nodefs.available": "500Mi"},
            "evictionMaxPodGracePeriod": 60,
        }))
        .unwrap();
        let (resource, amount) = (Resource::Memory, Amount::Units(1 << 30));
        let soft = Soft { resource, amount, grace: Duration::from_secs(90) };
        let expected = Thresholds {
            soft: vec![soft],
            reclaim: vec![(Resource::Storage, Amount::Units(500 << 20))],
            longest_grace: 60,
            ..Thresholds::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        for (field, value) in [
            ("evictionHard", json!({"memory": "5%"})),
            ("evictionHard", json!({"memory": "0%"})),
            ("evictionHard", json!({"memory.available": "x%"})),
            ("evictionHard", json!({"memory.available": "101%"})),
            ("evictionHard", json!({"pid.available": "-1"})),
            ("evictionSoft", json!({"memory": "5%"})),
            ("evictionSoftGracePeriod", json!({"memory": "5s"})),
            ("evictionMinimumReclaim", json!({"memory.available": "-1"})),
            ("evictionMaxPodGracePeriod", json!(-1)),
        ] {
            let error = format!("{:#}", read(json!({field: value})).unwrap_err());
            assert!(error.starts_with(&format!("field \"{field}\": ")), "{error}");
        }
        let lonely = read(json!({"evictionSoft": {"memory.available": "1Gi"}})).unwrap_err();
        assert!(lonely.to_string().contains("add one for memory.available"), "{lonely}");
    }
}
