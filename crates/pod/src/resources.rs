//! From the resources that a pod asks for to what the kernel is told: pure.
//!
//! The sums are Kubernetes' own (KEP-753): an init container runs before the others, beside the sidecars that come before it.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nodule_cgroup::{Limits, Qos};

use crate::quantity;
use crate::restart::is_sidecar;

/// A pod's class of service, as the API server has decided it at the pod's creation.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    class.and_then(|class| class.parse().ok()).unwrap_or(Qos::BestEffort)
}

/// What a container's cgroup is limited to.
pub(crate) fn container(container: &Container, pids: Option<u64>) -> Limits {
    Limits {
        memory: limit(container, "memory", quantity::bytes),
        cpu_request: request(container, "cpu", quantity::thousandths),
        cpu_limit: limit(container, "cpu", quantity::thousandths),
        pids,
    }
}

/// What a pod's cgroup is limited to: by its own resources where it has them (KEP-2837), else by the sum of its containers',
/// and only where every one of them has a limit (the kubelet's `cm/helpers_linux.go`, `ResourceConfigForPod`).
pub(crate) fn pod(pod: &Pod, pids: Option<u64>) -> Limits {
    let Some(spec) = &pod.spec else { return Limits::default() };
    let own = |limits: bool, name: &str| {
        let resources = spec.resources.as_ref()?;
        let map = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
        map?.get(name)
    };
    Limits {
        memory: own(true, "memory")
            .and_then(quantity::bytes)
            .or(all(spec, |container| limit(container, "memory", quantity::bytes))),
        cpu_request: own(false, "cpu")
            .and_then(quantity::thousandths)
            .or(some(spec, |container| request(container, "cpu", quantity::thousandths))),
        cpu_limit: own(true, "cpu")
            .and_then(quantity::thousandths)
            .or(all(spec, |container| limit(container, "cpu", quantity::thousandths))),
        pids,
    }
}

/// How ready the kernel is to kill a container for want of memory (Kubernetes docs, "Node-pressure Eviction: Node out of
/// memory behavior"; the kubelet's `qos/policy.go`). `memory` is the node's, in bytes.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, memory: u64) -> i32 {
    const GUARANTEED: i32 = -997;
    const WORST: i32 = 1000;
    const CRITICAL: i32 = 2_000_000_000;
    let critical = pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|p| p >= CRITICAL);
    match qos(pod) {
        _ if critical => GUARANTEED,
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => WORST,
        Qos::Burstable => {
            let asked = request(container, "memory", quantity::bytes).unwrap_or(0);
            let share = u128::from(asked) * 1000 / u128::from(memory.max(1));
            let score = WORST - i32::try_from(share).unwrap_or(WORST);
            score.clamp(WORST + GUARANTEED, WORST - 1)
        }
    }
}

/// The niceness of a process that has no cgroup, so that it at least yields to those that asked for CPUs (setpriority(2)).
pub(crate) fn niceness(qos: Qos) -> i32 {
    match qos {
        Qos::Guaranteed => 0,
        Qos::Burstable => 5,
        Qos::BestEffort => 10,
    }
}

/// A limit of 0 is none.
fn limit(
    container: &Container,
    name: &str,
    read: impl Fn(&Quantity) -> Option<u64>,
) -> Option<u64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(name).and_then(read).filter(|limit| *limit > 0)
}

/// A limit without a request is a request, too.
pub(crate) fn request(
    container: &Container,
    name: &str,
    read: impl Fn(&Quantity) -> Option<u64>,
) -> Option<u64> {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = requests.and_then(|requests| requests.get(name)).and_then(&read);
    asked.or_else(|| limit(container, name, read))
}

/// The most that the pod's containers have at a time, those without any left out; none if none has any.
pub(crate) fn some(spec: &PodSpec, of: impl Fn(&Container) -> Option<u64>) -> Option<u64> {
    let (mut sidecars, mut most) = (0_u64, None::<u64>);
    for container in spec.init_containers.iter().flatten() {
        let Some(own) = of(container) else { continue };
        let now = sidecars.saturating_add(own);
        most = most.max(Some(now));
        if is_sidecar(container) {
            sidecars = now;
        }
    }
    let regular = spec.containers.iter().filter_map(of).reduce(u64::saturating_add);
    most.max(regular.map(|sum| sum.saturating_add(sidecars)))
}

/// The same, if every container has one.
fn all(spec: &PodSpec, of: impl Fn(&Container) -> Option<u64>) -> Option<u64> {
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.all(|container| of(container).is_some()).then(|| some(spec, of)).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(spec: &Value) -> Pod {
        let class = spec["class"].as_str().unwrap_or("Burstable").to_owned();
        let pod = json!({"spec": spec, "status": {"qosClass": class}});
        serde_json::from_value(pod).unwrap()
    }

    fn one(name: &str, request: &str, limit: &str, sidecar: bool) -> Value {
        let map = |value: &str| if value.is_empty() { json!({}) } else { json!({"cpu": value}) };
        let policy = if sidecar { json!("Always") } else { Value::Null };
        json!({"name": name, "restartPolicy": policy, "resources": {"requests": map(request), "limits": map(limit)}})
    }

    #[test]
    fn a_pod_is_limited_to_what_its_containers_have_at_a_time() {
        let table = [
            (
                json!({"containers": [one("a", "100m", "1", false), one("b", "", "500m", false)]}),
                Some(600),
                Some(1500),
            ),
            (
                json!({"containers": [one("a", "100m", "1", false), one("b", "", "", false)]}),
                Some(100),
                None,
            ),
            (
                json!({"initContainers": [one("i", "", "2", false)], "containers": [one("a", "", "1", false)]}),
                Some(2000),
                Some(2000),
            ),
            (
                json!({"initContainers": [one("s", "", "1", true), one("i", "", "2", false)], "containers": [one("a", "", "1", false)]}),
                Some(3000),
                Some(3000),
            ),
            (
                json!({"initContainers": [one("i", "", "", false)], "containers": [one("a", "", "1", false)]}),
                Some(1000),
                None,
            ),
            (json!({"containers": [one("a", "", "0", false)]}), None, None),
            (
                json!({"containers": [one("a", "1", "", false)], "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "4"}}}),
                Some(3000),
                Some(4000),
            ),
        ];
        for (spec, request, limit) in table {
            let limits = pod(&parse(&spec), Some(7));
            assert_eq!(
                (limits.cpu_request, limits.cpu_limit, limits.pids),
                (request, limit, Some(7)),
                "{spec}"
            );
        }
    }

    #[test]
    fn the_score_is_the_kubelets() {
        let table = [
            (json!({"class": "Guaranteed"}), "", -997),
            (json!({"class": "BestEffort"}), "", 1000),
            (json!({"class": "BestEffort", "priority": 2_000_001_000}), "", -997),
            (json!({}), "", 999),
            (json!({}), "500", 500),
            (json!({}), "1", 999),
            (json!({}), "1000", 3),
            (json!({}), "5000", 3),
        ];
        for (mut spec, memory, score) in table {
            spec["containers"] = json!([]);
            let requests = if memory.is_empty() { json!({}) } else { json!({"memory": memory}) };
            let container: Container =
                serde_json::from_value(json!({"name": "a", "resources": {"requests": requests}}))
                    .unwrap();
            assert_eq!(oom_score_adj(&parse(&spec), &container, 1000), score, "{spec} {memory}");
        }
    }
}
