//! Who goes first, and what is said of it: pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Resource, Starved};
use crate::admission::{Claim, count};
use crate::ending::own_grace;
use crate::failure::{Failure, Manner};
use crate::order;
use crate::quantity::Total;
use crate::resources;
use crate::view::View;

/// A pod that may be evicted, and what it uses of what is short.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(super) uid: String,
    pod: Arc<Pod>,
    /// By container.
    used: BTreeMap<String, u64>,
}

impl Candidate {
    pub(super) fn new(uid: &str, view: &View, used: BTreeMap<String, u64>) -> Self {
        Self { uid: uid.to_owned(), pod: Arc::clone(&view.pod), used }
    }

    fn used(&self) -> u64 {
        self.used.values().copied().fold(0, u64::saturating_add)
    }

    fn over(&self, resource: Resource) -> u64 {
        let asked =
            resource.name().and_then(|name| Claim::of(&self.pod).amounts.get(name).copied());
        self.used().saturating_sub(asked.unwrap_or(0))
    }
}

impl Resource {
    /// As a pod asks for it; none of what no pod can ask for.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("memory"),
            Self::Storage => Some("ephemeral-storage"),
            Self::Inodes | Self::Pids => None,
        }
    }

    /// Whether more of it comes of what is removed from the disk.
    pub(super) fn is_of_disk(self) -> bool {
        matches!(self, Self::Storage | Self::Inodes)
    }

    /// In messages.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::Inodes => "inodes",
            Self::Pids => "pids",
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
        }
    }

    fn amount(self, amount: u64) -> String {
        match self {
            Self::Memory | Self::Storage => Total::binary(amount).to_string(),
            Self::Inodes | Self::Pids => amount.to_string(),
        }
    }
}

/// Those over their request first, then those of less priority, then those that are most over it. For process ids, which nobody
/// asks for, the priority alone goes before the use.
pub(super) fn first(candidates: Vec<Candidate>, resource: Resource) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let over = candidate.over(resource);
        let claim = Claim::of(&candidate.pod);
        let within = over == 0 && resource.name().is_some();
        (within, claim.priority, Reverse(over))
    })
}

impl Failure {
    /// The node is short of something: gone at once below a hard threshold (`immediateEvictionGracePeriodSeconds`), and in the
    /// pod's own time below a soft one, as far as the node has it.
    pub(super) fn starved(victim: &Candidate, short: Starved) -> Self {
        let Starved { resource, threshold, available, longest_grace, wanted: _ } = short;
        let grace = longest_grace.map_or(1, |longest| own_grace(&victim.pod).min(longest));
        let (threshold, available) = (resource.amount(threshold), resource.amount(available));
        let resource_name = resource.told();
        let mut message = format!(
            "The node was low on resource: {resource_name}. Threshold quantity: {threshold}, available: {available}. "
        );
        let mut offending = (Vec::new(), Vec::new());
        for (container, used, asked) in over_request(victim, resource) {
            let (used, asked) = (resource.amount(used), resource.amount(asked));
            // Writing to a string does not fail.
            let _ = write!(
                message,
                "Container {container} was using {used}, request is {asked}, has larger consumption of {resource_name}. "
            );
            offending.0.push(container);
            offending.1.push(used);
        }
        let annotations = [
            ("offending_containers", offending.0.join(",")),
            ("offending_containers_usage", offending.1.join(",")),
            ("starved_resource", resource_name.to_owned()),
        ];
        Self {
            reason: "Evicted".to_owned(),
            message,
            grace: Some(grace),
            manner: Manner::Disrupted,
            annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    }
}

/// The containers that use more than they asked for: name, use, request.
fn over_request(victim: &Candidate, resource: Resource) -> Vec<(String, u64, u64)> {
    let Some((name, spec)) = resource.name().zip(victim.pod.spec.as_ref()) else {
        return Vec::new();
    };
    let each = order::all(spec).filter_map(|(_, container)| {
        let used = *victim.used.get(&container.name)?;
        let asked = resources::request(&container, name, |quantity| count(name, quantity));
        Some((container.name, used, asked.unwrap_or(0)))
    });
    each.filter(|(_, used, asked)| used > asked).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn candidate(uid: &str, priority: i32, request: Option<&str>, used: u64) -> Candidate {
        let requests = request.map_or(json!({}), |request| json!({"memory": request}));
        let pod = json!({"metadata": {}, "spec": {"priority": priority, "containers": [
            {"name": "app", "resources": {"requests": requests}}]}});
        Candidate {
            uid: uid.to_owned(),
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            used: [("app".to_owned(), used)].into(),
        }
    }

    fn short(resource: Resource, threshold: u64, available: u64) -> Starved {
        Starved { resource, threshold, available, wanted: threshold, longest_grace: None }
    }

    #[test]
    fn a_soft_threshold_leaves_a_pod_its_own_grace_period_up_to_the_nodes() {
        for (longest, own, wanted) in
            [(None, 20, 1), (Some(60), 20, 20), (Some(15), 20, 15), (Some(0), 20, 0)]
        {
            let mut victim = candidate("a", 0, None, 40);
            let pod = Arc::make_mut(&mut victim.pod);
            pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(own);
            let short = Starved { longest_grace: longest, ..short(Resource::Memory, 100 * MIB, 1) };
            assert_eq!(Failure::starved(&victim, short).grace, Some(wanted), "{longest:?}");
        }
    }

    #[test]
    fn over_the_request_goes_before_priority_and_that_before_how_much() {
        let mut candidates = vec![
            candidate("modest", 0, Some("10Mi"), 5 * MIB),
            candidate("important", 7, None, 50 * MIB),
            candidate("large", 0, None, 20 * MIB),
            candidate("larger", 0, Some("10Mi"), 40 * MIB),
        ];
        for wanted in ["larger", "large", "important", "modest"] {
            let found = first(candidates.clone(), Resource::Memory).unwrap().uid;
            assert_eq!(found, wanted);
            candidates.retain(|candidate| candidate.uid != found);
        }
        assert!(first(candidates, Resource::Memory).is_none());
    }

    #[test]
    fn the_message_names_the_threshold_and_the_containers_that_are_over_their_request() {
        let short = short(Resource::Memory, 100 * MIB, 90 << 10);
        let failure = Failure::starved(&candidate("a", 0, Some("10Mi"), 40 * MIB), short);
        assert_eq!(
            failure.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Ki. \
             Container app was using 40Mi, request is 10Mi, has larger consumption of memory. "
        );
        assert_eq!(failure.annotations["offending_containers_usage"], "40Mi");
        let short = self::short(Resource::Pids, 1000, 10);
        let failure = Failure::starved(&candidate("a", 0, None, 4), short);
        assert_eq!(
            failure.message,
            "The node was low on resource: pids. Threshold quantity: 1000, available: 10. "
        );
        assert_eq!((failure.grace, failure.manner), (Some(1), Manner::Disrupted));
    }
}
