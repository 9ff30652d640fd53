//! What a pod asks of a node: pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nodule_cgroup::Qos;

use crate::quantity;
use crate::resources;

/// The least priority of a pod that the node itself depends on (`scheduling.SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;

/// Amounts by the resource's name: CPUs in thousandths, memory and storage in bytes, all others as they are counted.
pub(crate) type Amounts = BTreeMap<String, u64>;

/// A pod's requests, and what decides who goes before whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) amounts: Amounts,
    /// Ports of the node's own that it asks for: protocol, address, number.
    pub(crate) ports: BTreeSet<(String, String, i32)>,
    pub(crate) qos: Qos,
    pub(crate) priority: i32,
    pub(crate) critical: bool,
}

/// Whether the node itself depends on the pod: a static pod, a mirror of one, or one of the highest priorities.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let from = |key: &str| annotations.is_some_and(|all| all.contains_key(key));
    let source = annotations.and_then(|all| all.get("kubernetes.io/config.source"));
    from("kubernetes.io/config.mirror")
        || source.is_some_and(|source| source != "api")
        || priority(pod) >= CRITICAL
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

impl Claim {
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut amounts = Amounts::from([("pods".to_owned(), 1)]);
        for name in names(spec) {
            let amount = amount(spec, &name);
            amounts.insert(name, amount);
        }
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        Self {
            amounts,
            ports: containers.flat_map(ports).collect(),
            qos: resources::qos(pod),
            priority: priority(pod),
            critical: is_critical(pod),
        }
    }
}

/// A quantity in the unit that its resource is counted in.
pub(crate) fn count(name: &str, quantity: &Quantity) -> Option<u64> {
    if name == "cpu" { quantity::thousandths(quantity) } else { quantity::bytes(quantity) }
}

/// Every resource that some container, or the pod itself, asks for.
fn names(spec: &PodSpec) -> BTreeSet<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let of_containers = containers.filter_map(|container| container.resources.as_ref());
    let all = of_containers.chain(&spec.resources);
    let lists = all.flat_map(|own| own.requests.iter().chain(&own.limits));
    lists.chain(&spec.overhead).flatten().map(|(name, _)| name.clone()).collect()
}

/// The pod's own request where it has one (KEP-2837), else what its containers ask for at one time; and the overhead of its
/// RuntimeClass.
fn amount(spec: &PodSpec, name: &str) -> u64 {
    let own = spec.resources.as_ref().and_then(|own| own.requests.as_ref()?.get(name));
    let asked = own.and_then(|own| count(name, own)).or_else(|| {
        resources::some(spec, |container| resources::request(container, name, |q| count(name, q)))
    });
    let overhead = spec.overhead.as_ref().and_then(|overhead| count(name, overhead.get(name)?));
    asked.unwrap_or(0).saturating_add(overhead.unwrap_or(0))
}

fn ports(container: &Container) -> impl Iterator<Item = (String, String, i32)> {
    let asked = container.ports.iter().flatten();
    asked.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.clone().filter(|address| !address.is_empty());
        Some((
            port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            address.unwrap_or_else(|| "0.0.0.0".to_owned()),
            number,
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: &Value) -> Claim {
        Claim::of(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    }

    fn container(requests: &Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests}})
    }

    #[test]
    fn a_pod_asks_for_the_most_that_it_needs_at_one_time() {
        let mut sidecar = container(&json!({"cpu": "100m"}));
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({
            "initContainers": [sidecar, container(&json!({"cpu": "2", "example.com/gadget": "3"}))],
            "containers": [container(&json!({"cpu": "500m", "memory": "1Mi"})), container(&json!({"cpu": "1"}))],
            "overhead": {"cpu": "50m"},
        });
        let wanted = [("cpu", 2150), ("example.com/gadget", 3), ("memory", 1 << 20), ("pods", 1)];
        let wanted: Amounts = wanted.map(|(name, amount)| (name.to_owned(), amount)).into();
        assert_eq!(claim(&spec).amounts, wanted);
        let spec = json!({
            "resources": {"requests": {"cpu": "3"}},
            "containers": [container(&json!({"cpu": "500m"}))],
        });
        assert_eq!(claim(&spec).amounts["cpu"], 3000);
    }

    #[test]
    fn ports_of_the_node_are_asked_for_by_protocol_and_address() {
        let spec = json!({"containers": [{"name": "c", "ports": [
            {"containerPort": 80},
            {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"}]}]});
        let wanted = [("TCP", "0.0.0.0", 8080), ("UDP", "127.0.0.1", 53)];
        let wanted = wanted.map(|(kind, ip, port)| (kind.to_owned(), ip.to_owned(), port));
        assert_eq!(claim(&spec).ports, wanted.into());
    }
}
