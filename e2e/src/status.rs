//! What tests read from the status of nodes and pods.

use k8s_openapi::api::core::v1::{
    ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Node,
    Pod,
};

/// The status of a node's condition: True, False or Unknown; empty where it has none.
pub fn node_condition<'a>(node: &'a Node, kind: &str) -> &'a str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let found = conditions.into_iter().flatten().find(|condition| condition.type_ == kind);
    found.map_or("", |condition| condition.status.as_str())
}

/// A pod's phase; empty where it has none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The status of a pod's container.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

/// What the one container that [`crate::test::Test::spec`] makes waits for, if it does.
pub fn waiting(pod: &Pod) -> Option<&ContainerStateWaiting> {
    container(pod, "main")?.state.as_ref()?.waiting.as_ref()
}

/// Since when it runs, if it does.
pub fn running(pod: &Pod) -> Option<&ContainerStateRunning> {
    container(pod, "main")?.state.as_ref()?.running.as_ref()
}

/// How it ended, if it did.
pub fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container(pod, "main")?.state.as_ref()?.terminated.as_ref()
}

/// How often its containers were started again.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// Whether the pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
