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

    /// How much more than its request; less than nothing where it is within.
    fn over(&self, resource: Resource) -> i128 {
        let asked =
            resource.name().and_then(|name| Claim::of(&self.pod).amounts.get(name).copied());
        i128::from(self.used()) - i128::from(asked.unwrap_or(0))
    }

    /// The pod's own request, where it has one beside those of its containers (KEP-2837).
    fn of_pod(&self, resource: Resource) -> Option<u64> {
        let requests = self.pod.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        let name = resource.name()?;
        count(name, requests.get(name)?)
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

/// Those over their request first, then those of less priority, then those that are most over it, or next to it. For process
/// ids, which nobody asks for, the priority alone goes before the use.
pub(super) fn first(candidates: Vec<Candidate>, resource: Resource) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let over = candidate.over(resource);
        let claim = Claim::of(&candidate.pod);
        let within = over <= 0 && resource.name().is_some();
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
        let mut annotations = BTreeMap::from([("starved_resource", resource_name.to_owned())]);
        let mut tell = |what: &str, name: &str, used: &str, asked: u64| {
            let asked = resource.amount(asked);
            // Writing to a string does not fail.
            let _ = write!(
                message,
                "{what} {name} was using {used}, request is {asked}, has larger consumption of {resource_name}. "
            );
        };
        let name = victim.pod.metadata.name.as_deref().unwrap_or_default();
        if let Some(asked) = victim.of_pod(resource).filter(|_| resource == Resource::Memory) {
            let used = resource.amount(victim.used());
            tell("Pod", name, &used, asked);
            annotations.insert("offending_pod", name.to_owned());
            annotations.insert("offending_pod_usage", used);
        }
        let mut offending = (Vec::new(), Vec::new());
        for (container, used, asked) in over_request(victim, resource) {
            let used = resource.amount(used);
            tell("Container", &container, &used, asked);
            offending.0.push(container);
            offending.1.push(used);
        }
        annotations.insert("offending_containers", offending.0.join(","));
        annotations.insert("offending_containers_usage", offending.1.join(","));
        Self {
            reason: "Evicted".to_owned(),
            message,
            grace: Some(grace),
            manner: Manner::Disrupted,
            annotations: owned(annotations),
        }
    }
}

fn owned(annotations: BTreeMap<&str, String>) -> BTreeMap<String, String> {
    annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The containers that use more than they asked for: name, use, request. Ephemeral ones cannot ask.
fn over_request(victim: &Candidate, resource: Resource) -> Vec<(String, u64, u64)> {
    let Some((name, spec)) = resource.name().zip(victim.pod.spec.as_ref()) else {
        return Vec::new();
    };
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let each = all.filter_map(|container| {
        let used = *victim.used.get(&container.name)?;
        let asked = resources::request(container, name, |quantity| count(name, quantity));
        Some((container.name.clone(), used, asked.unwrap_or(0)))
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
            candidate("near", 0, Some("10Mi"), 9 * MIB),
            candidate("even", 0, Some("1Gi"), 1024 * MIB),
            candidate("important", 7, None, 50 * MIB),
            candidate("large", 0, None, 20 * MIB),
            candidate("larger", 0, Some("10Mi"), 40 * MIB),
        ];
        for wanted in ["larger", "large", "important", "even", "near", "modest"] {
            let found = first(candidates.clone(), Resource::Memory).unwrap().uid;
            assert_eq!(found, wanted);
            candidates.retain(|candidate| candidate.uid != found);
        }
        assert!(first(candidates, Resource::Memory).is_none());
    }

    #[test]
    fn a_pod_with_a_request_of_its_own_is_told_of_and_ephemeral_containers_are_not() {
        let pod = json!({"metadata": {"name": "web"}, "spec": {
            "resources": {"requests": {"memory": "64Mi"}},
            "initContainers": [{"name": "side"}], "containers": [{"name": "app"}],
            "ephemeralContainers": [{"name": "debug"}]}});
        let used = [("app", 3), ("debug", 5), ("side", 2)];
        let victim = Candidate {
            uid: "u".to_owned(),
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            used: used.map(|(name, mib)| (name.to_owned(), mib * MIB)).into(),
        };
        let failure = Failure::starved(&victim, short(Resource::Memory, 100 * MIB, MIB));
        assert_eq!(
            failure.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1Mi. \
             Pod web was using 10Mi, request is 64Mi, has larger consumption of memory. \
             Container side was using 2Mi, request is 0, has larger consumption of memory. \
             Container app was using 3Mi, request is 0, has larger consumption of memory. "
        );
        let noted = [
            ("offending_containers", "side,app"),
            ("offending_containers_usage", "2Mi,3Mi"),
            ("offending_pod", "web"),
            ("offending_pod_usage", "10Mi"),
            ("starved_resource", "memory"),
        ];
        let noted = noted.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(failure.annotations, noted.into());
        let failure = Failure::starved(&victim, short(Resource::Storage, 100 * MIB, MIB));
        assert!(!failure.message.contains("Pod web"), "{}", failure.message);
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
