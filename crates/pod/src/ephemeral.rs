//! Ephemeral containers: put into a pod that runs, to look at it (KEP-277). Each runs once, whatever the others do; neither the
//! pod's phase nor its readiness asks for them.
//!
//! `targetContainerName` asks for the target's process namespace. A guest sees no processes, so that there is nothing to share:
//! the container has the pod's network and the volumes that it mounts.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// The pod's ephemeral containers, in the order of the spec.
pub(crate) fn of(spec: &PodSpec) -> impl Iterator<Item = Container> {
    spec.ephemeral_containers.iter().flatten().cloned().map(container)
}

/// Whether a container of the pod is one.
pub(crate) fn is_one(pod: &Pod, name: &str) -> bool {
    let all = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    all.into_iter().any(|one| one.name == name)
}

/// As any container; the API server sees that what it must not have is empty: ports, probes, hooks, resources.
fn container(one: EphemeralContainer) -> Container {
    Container {
        name: one.name,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        command: one.command,
        args: one.args,
        working_dir: one.working_dir,
        env: one.env,
        env_from: one.env_from,
        volume_mounts: one.volume_mounts,
        volume_devices: one.volume_devices,
        security_context: one.security_context,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        tty: one.tty,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        restart_policy: Some("Never".to_owned()),
        ..Container::default()
    }
}
