//! Whether this node takes a pod on: the last word after the scheduler's, which may have been wrong, late, or never asked.
//!
//! [`verdict`] is pure; its checks, their order, reasons and words are the kubelet's (`k8s.io/kubernetes/pkg/kubelet/lifecycle/
//! predicate.go`, `eviction_manager.go`, `sysctl/allowlist.go`). The first check that fails decides. [`Ledger`] is what the
//! pods of this node have been promised; `affinity` reads node selectors, `preempt` chooses who makes room for a critical pod.

mod affinity;
mod claim;
mod ledger;
mod preempt;
mod taints;

use k8s_openapi::api::core::v1::{Node, Pod};

pub(crate) use claim::{Claim, count, is_critical};
pub(crate) use ledger::{Growth, Ledger, Room};

use crate::failure::Failure;

/// Sysctls that every pod may set. A guest has no kernel to set them in, so that they mean nothing here.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

const MEMORY: &str = "MemoryPressure";
const PRESSURES: [&str; 3] = [MEMORY, "DiskPressure", "PIDPressure"];

/// The predicate of node selectors and node affinity, which is the reason of a refusal for them.
pub(crate) const AFFINITY: &str = "NodeAffinity";

/// Why a pod is not taken on, in what is not a matter of room.
pub(crate) fn refusal(pod: &Pod, node: &Node) -> Option<Failure> {
    pressure(pod, node)
        .or_else(|| sysctl(pod))
        .or_else(|| app_armor(pod))
        .or_else(|| system_label(pod, node))
        .or_else(|| system(pod, node))
        .or_else(|| groups(pod, node))
}

/// Why a pod does not fit to this node, however much room there is. It counts after the room.
pub(crate) fn misfit(pod: &Pod, node: &Node) -> Option<Failure> {
    affinity(pod, node).or_else(|| taint(pod, node))
}

fn pressure(pod: &Pod, node: &Node) -> Option<Failure> {
    let shown = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let pressures: Vec<&str> = shown
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.type_.as_str())
        .filter(|kind| PRESSURES.contains(kind))
        .collect();
    if pressures.is_empty() || is_critical(pod) {
        return None;
    }
    let best_effort = crate::resources::qos(pod) == nodule_cgroup::Qos::BestEffort;
    let tolerates = || {
        let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
        tolerations.into_iter().any(|one| {
            taints::tolerates(one, "node.kubernetes.io/memory-pressure", "", "NoSchedule")
        })
    };
    if pressures == [MEMORY] && (!best_effort || tolerates()) {
        return None;
    }
    let message = format!("The node had condition: [{}]. ", pressures.join(" "));
    Some(Failure::rejected("Evicted", &message))
}

fn sysctl(pod: &Pod) -> Option<Failure> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    let mut asked = context.sysctls.iter().flatten();
    let unsafe_one = asked.find(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        !SAFE_SYSCTLS.contains(&name.as_str())
    })?;
    let message = format!("forbidden sysctl: \"{}\" not allowlisted", unsafe_one.name);
    Some(Failure::rejected("SysctlForbidden", &message))
}

fn app_armor(pod: &Pod) -> Option<Failure> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|own| own.app_armor_profile.as_ref());
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let of_containers = containers
        .filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let mut profiles = of_pod.into_iter().chain(of_containers);
    profiles.any(|profile| profile.type_ == "Localhost").then(|| {
        let message = "Cannot enforce AppArmor: a guest of this node makes no system calls that it could confine";
        Failure::rejected("AppArmor", message)
    })
}

fn system_label(pod: &Pod, node: &Node) -> Option<Failure> {
    const LABEL: &str = "kubernetes.io/os";
    let asked = pod.metadata.labels.as_ref()?.get(LABEL)?;
    let own = node.metadata.labels.as_ref()?.get(LABEL)?;
    (asked != own).then(|| {
        let message =
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        Failure::rejected("PodOSSelectorNodeLabelDoesNotMatch", message)
    })
}

fn system(pod: &Pod, node: &Node) -> Option<Failure> {
    let asked = pod.spec.as_ref()?.os.as_ref()?;
    let own = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    (own.map(|info| info.operating_system.as_str()) != Some(asked.name.as_str())).then(|| {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        Failure::rejected("PodOSNotSupported", message)
    })
}

/// KEP-3619: a node says of itself whether it keeps to the groups that a pod names, and no others.
fn groups(pod: &Pod, node: &Node) -> Option<Failure> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    let features = node.status.as_ref().and_then(|status| status.features.as_ref());
    let has = features.and_then(|features| features.supplemental_groups_policy).unwrap_or(false);
    (context.supplemental_groups_policy.as_deref() == Some("Strict") && !has).then(|| {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        Failure::rejected("SupplementalGroupsPolicyNotSupported", message)
    })
}

fn affinity(pod: &Pod, node: &Node) -> Option<Failure> {
    let spec = pod.spec.as_ref()?;
    let why = "node(s) didn't match Pod's node affinity/selector";
    (!affinity::matches(spec, node)).then(|| predicate(AFFINITY, why))
}

fn taint(pod: &Pod, node: &Node) -> Option<Failure> {
    let why = "node(s) had taints that the pod didn't tolerate";
    taints::is_repelled(pod, node).then(|| predicate("TaintToleration", why))
}

/// A predicate of the scheduler's that does not hold.
fn predicate(name: &'static str, why: &str) -> Failure {
    Failure::rejected(name, &format!("Predicate {name} failed: {why}"))
}

/// The machine is shut down.
pub(crate) fn shutting_down() -> Failure {
    Failure::rejected("NodeShutdown", "Pod was rejected as the node is shutting down.")
}

/// The pod's host ports are taken.
pub(crate) fn port_taken() -> Failure {
    predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, priority: i64) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "a"}]);
        spec["priority"] = json!(priority);
        serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"app": "x"}}, "spec": spec,
            "status": {"qosClass": "BestEffort"},
        }))
        .unwrap()
    }

    fn node(conditions: &[&str]) -> Node {
        let conditions: Vec<_> =
            conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"kubernetes.io/os": "wasi"}},
            "status": {"conditions": conditions, "nodeInfo": {
                "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "",
                "systemUUID": "", "operatingSystem": "wasi"}},
            "spec": {"taints": [{"key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoExecute"}]},
        }))
        .unwrap()
    }

    fn why(failure: Option<Failure>) -> Option<(String, String)> {
        failure.map(|failure| (failure.reason, failure.message))
    }

    #[test]
    fn a_node_under_pressure_takes_only_what_does_not_add_to_it_and_what_is_critical() {
        let tolerant = json!({"tolerations": [
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]});
        for (spec, priority, conditions, message) in [
            (json!({}), 0, &["Ready"][..], None),
            (json!({}), 0, &[MEMORY], Some("The node had condition: [MemoryPressure]. ")),
            (tolerant.clone(), 0, &[MEMORY], None),
            (tolerant, 0, &["DiskPressure"], Some("The node had condition: [DiskPressure]. ")),
            (json!({}), 2_000_000_000, &["DiskPressure", MEMORY], None),
        ] {
            let found = why(refusal(&pod(spec, priority), &node(conditions)));
            let wanted = message
                .map(|message| ("Evicted".to_owned(), format!("Pod was rejected: {message}")));
            assert_eq!(found, wanted, "{conditions:?}");
        }
    }

    #[test]
    fn what_a_guest_cannot_have_is_refused_by_its_reason() {
        let mut labelled = pod(json!({}), 0);
        labelled.metadata.labels =
            Some([("kubernetes.io/os".to_owned(), "linux".to_owned())].into());
        let profile = json!({"securityContext": {"appArmorProfile": {"type": "Localhost"}}});
        let sysctls =
            |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        let groups =
            |policy: &str| json!({"securityContext": {"supplementalGroupsPolicy": policy}});
        for (pod, reason) in [
            (pod(json!({"os": {"name": "linux"}}), 0), Some("PodOSNotSupported")),
            (labelled, Some("PodOSSelectorNodeLabelDoesNotMatch")),
            (pod(profile, 0), Some("AppArmor")),
            (pod(sysctls("kernel.msgmax"), 0), Some("SysctlForbidden")),
            (pod(groups("Strict"), 0), Some("SupplementalGroupsPolicyNotSupported")),
            (pod(groups("Merge"), 0), None),
            (pod(sysctls("net/ipv4/tcp_syncookies"), 0), None),
        ] {
            let found = refusal(&pod, &node(&[])).map(|failure| failure.reason);
            assert_eq!(found.as_deref(), reason);
        }
    }

    #[test]
    fn what_does_not_fit_to_the_node_is_refused_by_the_name_of_the_predicate() {
        let tolerant = json!([{"operator": "Exists"}]);
        for (spec, wanted) in [
            (json!({"tolerations": tolerant}), None),
            (
                json!({}),
                Some(
                    "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
                ),
            ),
            (
                json!({"tolerations": tolerant, "nodeSelector": {"disk": "fast"}}),
                Some(
                    "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
                ),
            ),
        ] {
            let found = misfit(&pod(spec, 0), &node(&[])).map(|failure| failure.message);
            assert_eq!(found, wanted.map(|message| format!("Pod was rejected: {message}")));
        }
    }
}
