//! From what was seen of a container to its `ContainerStatus`: pure.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, ImageVolumeStatus, LinuxContainerUser,
    PodSpec, VolumeMount, VolumeMountStatus, VolumeStatus,
};
use nodule_sandbox_proto::User;

use crate::phase::{exit_code, is_running};
use crate::record::{History, Phase, Record, Run};
use crate::restart::is_sidecar;
use crate::status::{Seen, container_id, seconds};

pub(crate) fn container_statuses<'a>(
    seen: &Seen<'_>,
    containers: impl Iterator<Item = &'a Container>,
    spec: &PodSpec,
) -> Vec<ContainerStatus> {
    let has_init = spec.init_containers.as_ref().is_some_and(|init| !init.is_empty());
    containers.map(|container| container_status(seen, container, has_init)).collect()
}

pub(crate) fn container_status(
    seen: &Seen<'_>,
    container: &Container,
    has_init: bool,
) -> ContainerStatus {
    let history = seen.record.containers.get(&container.name);
    let run = history.and_then(|history| history.run.as_ref());
    let (state, last_state) = states(seen, container, history, has_init);
    let done = state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
    let ready = if is_init(seen, container) && !is_sidecar(container) {
        done
    } else {
        seen.record.is_ready(container)
    };
    ContainerStatus {
        name: container.name.clone(),
        ready,
        started: Some(seen.record.is_started(container)),
        restart_count: run.map_or(0, |run| i32::try_from(run.attempt).unwrap_or(i32::MAX)),
        image: run
            .map_or_else(|| container.image.clone().unwrap_or_default(), |run| run.image.clone()),
        image_id: run.map_or_else(String::new, |run| run.image_id.clone()),
        container_id: run.filter(|run| !run.id.is_empty()).map(|run| container_id(&run.id)),
        state: Some(state),
        last_state: Some(last_state),
        user: run.and_then(|run| run.user.as_ref()).map(container_user),
        allocated_resources: container.resources.as_ref().and_then(|own| own.requests.clone()),
        resources: run.and_then(|run| run.resources.clone()),
        stop_signal: run.and_then(|_| stop_signal(container).cloned()),
        volume_mounts: run
            .filter(|run| !run.id.is_empty())
            .map(|_| mounts(seen.record, container))
            .filter(|mounts| !mounts.is_empty()),
        ..ContainerStatus::default()
    }
}

/// The state and the last state: an end moves to the last state as soon as the container waits to run again.
fn states(
    seen: &Seen<'_>,
    container: &Container,
    history: Option<&History>,
    has_init: bool,
) -> (ContainerState, ContainerState) {
    let last = history.and_then(|history| history.last.clone());
    let waiting = || {
        let default = match () {
            () if seen.record.restarting => "RestartingAllContainers",
            () if has_init => "PodInitializing",
            () => "ContainerCreating",
        };
        let known = seen.waiting.get(&container.name);
        let reason = known.map_or(default, |waiting| waiting.reason).to_owned();
        let message =
            known.map(|waiting| waiting.message.clone()).filter(|message| !message.is_empty());
        ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason), message }),
            ..Default::default()
        }
    };
    let ended = |terminated| ContainerState { terminated, ..ContainerState::default() };
    match history.and_then(|history| history.run.as_ref()) {
        None => (waiting(), ended(last)),
        Some(Run { end: Some(end), .. }) if is_to_wait(seen, container, history) => {
            (waiting(), ended(Some(end.clone())))
        }
        Some(Run { end: Some(end), .. }) => (ended(Some(end.clone())), ended(last)),
        Some(Run { started: Some(started), .. }) => {
            let running = ContainerStateRunning { started_at: Some(seconds(*started)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, ended(last))
        }
        Some(_) => (waiting(), ended(last)),
    }
}

/// Whether a container that has ended waits to run again.
fn is_to_wait(seen: &Seen<'_>, container: &Container, history: Option<&History>) -> bool {
    let waits = seen.record.restarting
        || seen.waiting.contains_key(&container.name)
        || history.is_some_and(|history| history.again);
    waits && seen.record.phase == Phase::Syncing
}

fn is_init(seen: &Seen<'_>, container: &Container) -> bool {
    let spec = seen.record.pod.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.init_containers.iter().flatten().any(|init| init.name == container.name)
    })
}

/// What a container has mounted, and of an image which one that is (KEP-3857, KEP-5365).
fn mounts(record: &Record, container: &Container) -> Vec<VolumeMountStatus> {
    let of_image = |name: &str| {
        let image_ref = record.images.get(name)?.clone();
        Some(VolumeStatus { image: Some(ImageVolumeStatus { image_ref }) })
    };
    let mount = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        // This node says of itself that it has nothing of the kind.
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        volume_status: of_image(&mount.name),
    };
    container.volume_mounts.iter().flatten().map(mount).collect()
}

/// The signal that a container asks to be stopped by (KEP-4960), where the API server lets it.
pub(crate) fn stop_signal(container: &Container) -> Option<&String> {
    container.lifecycle.as_ref()?.stop_signal.as_ref()
}

/// Whom the container's process is (KEP-3619).
fn container_user(user: &User) -> ContainerUser {
    let groups =
        std::iter::once(user.gid).chain(user.groups.iter().copied().filter(|id| *id != user.gid));
    let linux = LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: Some(groups.map(i64::from).collect()),
    };
    ContainerUser { linux: Some(linux) }
}

/// Whether the pod came as far as its regular containers (the kubelet's `hasPodInitialized`).
pub(crate) fn has_initialized(init: &[ContainerStatus], containers: &[ContainerStatus]) -> bool {
    let ran = |status: &ContainerStatus| is_running(status) || exit_code(status).is_some();
    let done = |last: &ContainerStatus| last.started == Some(true) || exit_code(last) == Some(0);
    init.last().is_none_or(done) || containers.iter().any(ran)
}

/// A container that still waits when nothing of its pod runs any more never will: those who judge a pod by its containers find
/// an end of each (the kubelet's `TerminatePod`).
pub(crate) fn give_up(status: &mut ContainerStatus) {
    let Some(state) = status.state.as_mut().filter(|state| state.waiting.is_some()) else { return };
    state.waiting = None;
    state.terminated = Some(ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..ContainerStateTerminated::default()
    });
}
