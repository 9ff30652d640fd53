//! How long pods may take when the machine is shut down.

use std::time::Duration;

use anyhow::{Result, ensure};
use nodule_pod::ShutdownGroup;
use serde::Deserialize;

use super::kubelet::Kubelet;

/// The least priority of pods that the node itself depends on.
const CRITICAL: i32 = 2_000_000_000;

/// An entry of `shutdownGracePeriodByPodPriority`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ByPriority {
    priority: i32,
    shutdown_grace_period_seconds: u64,
}

/// The groups by ascending priority; none if shutdowns do not wait.
pub(crate) fn groups(kubelet: &Kubelet) -> Result<Vec<ShutdownGroup>> {
    let all = kubelet.shutdown_grace_period.or(Duration::ZERO);
    let critical = kubelet.shutdown_grace_period_critical_pods.or(Duration::ZERO);
    let by_priority = &kubelet.shutdown_grace_period_by_pod_priority;
    ensure!(
        by_priority.is_empty() || (all.is_zero() && critical.is_zero()),
        "field \"shutdownGracePeriodByPodPriority\": use it or shutdownGracePeriod, not both"
    );
    ensure!(
        critical <= all,
        "field \"shutdownGracePeriodCriticalPods\": it is a part of shutdownGracePeriod: use no more than that"
    );
    if all.is_zero() && by_priority.is_empty() {
        return Ok(Vec::new());
    }
    let group = |priority, grace| ShutdownGroup { priority, grace };
    if by_priority.is_empty() {
        return Ok(vec![group(0, all - critical), group(CRITICAL, critical)]);
    }
    let mut groups: Vec<_> = by_priority
        .iter()
        .map(|entry| {
            group(entry.priority, Duration::from_secs(entry.shutdown_grace_period_seconds))
        })
        .collect();
    groups.sort_by_key(|group| group.priority);
    ensure!(
        groups.windows(2).all(|pair| pair.first().map(|one| one.priority) != pair.last().map(|one| one.priority)),
        "field \"shutdownGracePeriodByPodPriority\": name each priority once"
    );
    Ok(groups)
}

/// All groups one after the other; none if shutdowns do not wait.
pub(crate) fn delay(groups: &[ShutdownGroup]) -> Option<Duration> {
    let all: Duration = groups.iter().map(|group| group.grace).sum();
    (!all.is_zero()).then_some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(fields: Value) -> Result<Vec<(i32, u64)>> {
        let kubelet: Kubelet = serde_json::from_value(fields)?;
        let groups = groups(&kubelet)?;
        Ok(groups.iter().map(|group| (group.priority, group.grace.as_secs())).collect())
    }

    #[test]
    fn critical_pods_have_their_part_at_the_end_or_each_priority_its_own() {
        let plain = json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"});
        assert_eq!(read(plain).unwrap(), [(0, 20), (CRITICAL, 10)]);
        let entry = |priority: i32, seconds: u64| json!({"priority": priority, "shutdownGracePeriodSeconds": seconds});
        let by_priority = json!({"shutdownGracePeriodByPodPriority": [entry(9, 5), entry(-1, 7)]});
        assert_eq!(read(by_priority).unwrap(), [(-1, 7), (9, 5)]);
        assert_eq!(read(json!({})).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_the_fields_name() {
        let entry = json!({"priority": 1, "shutdownGracePeriodSeconds": 5});
        for (fields, name) in [
            (
                json!({"shutdownGracePeriodCriticalPods": "10s"}),
                "\"shutdownGracePeriodCriticalPods\"",
            ),
            (
                json!({"shutdownGracePeriod": "10s", "shutdownGracePeriodByPodPriority": [entry]}),
                "\"shutdownGracePeriodByPodPriority\"",
            ),
            (
                json!({"shutdownGracePeriodByPodPriority": [entry, entry]}),
                "\"shutdownGracePeriodByPodPriority\"",
            ),
        ] {
            let error = read(fields).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
