//! What holds of every status, and of every two that follow each other. Where a rule is from is in its name's comment: the
//! Kubernetes documentation ("Pod Lifecycle"), the API's own words (`core/v1/types.go`), and KEPs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

use super::play::is_rejection;

type Kept = Result<(), String>;

fn ensure(holds: bool, rule: &str, of: &impl std::fmt::Debug) -> Kept {
    if holds { Ok(()) } else { Err(format!("{rule}: {of:?}")) }
}

fn is_final(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten()
}

fn conditions(status: &PodStatus) -> &[PodCondition] {
    status.conditions.as_deref().unwrap_or_default()
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    conditions(status).iter().find(|one| one.type_ == kind)
}

/// What holds of a status by itself. `open` are the containers that may still run.
pub(super) fn alone(status: &PodStatus, names: &[String], open: &[String]) -> Kept {
    if is_rejection(status.reason.as_deref()) {
        return ensure(
            containers(status).next().is_none(),
            "a refused pod has no containers",
            status,
        );
    }
    // Types.go, PodFailed and PodSucceeded: "all containers in the pod have terminated".
    ensure(
        !is_final(status) || open.is_empty(),
        "a terminal phase while a container may run",
        &open,
    )?;
    listed(status, names)?;
    for container in containers(status) {
        one(container)?;
    }
    readiness(status)?;
    // KEP-3329: together with the terminal phase.
    let disrupted = condition(status, "DisruptionTarget").is_some();
    ensure(!disrupted || status.phase.as_deref() == Some("Failed"), "disrupted, not failed", status)
}

/// All containers of the spec are told of: regular ones by name, init containers in the spec's order.
fn listed(status: &PodStatus, names: &[String]) -> Kept {
    let told: Vec<_> = containers(status).map(|one| one.name.clone()).collect();
    let mut wanted = names.to_vec();
    wanted.sort_by_key(|name| (!name.starts_with("init"), name.clone()));
    ensure(told == wanted, "not every container, or not in order", &told)
}

fn one(container: &ContainerStatus) -> Kept {
    let state = container.state.clone().unwrap_or_default();
    let said = [state.waiting.is_some(), state.running.is_some(), state.terminated.is_some()];
    let is_one = said.into_iter().filter(|said| *said).count() == 1;
    // Types.go, ContainerState: "Only one of its members may be specified."
    ensure(is_one, "not one state", container)?;
    let done = state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
    let runs = state.running.is_some();
    let init = container.name.starts_with("init");
    // Types.go, ContainerStatus.ready and .started; an init container is ready when it has done its work.
    ensure(!container.ready || runs || (init && done), "ready and not running", container)?;
    ensure(container.started != Some(true) || runs, "started and not running", container)?;
    let waits = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    ensure(waits != Some("CrashLoopBackOff") || last.is_some(), "loops without an end", container)?;
    let id = container.container_id.as_ref();
    let terminated = state.terminated.as_ref().and_then(|end| end.container_id.as_ref());
    ensure(terminated.is_none_or(|ended| Some(ended) == id), "the end of another run", container)
}

/// Types.go, Ready and ContainersReady; a pod that has ended is not ready.
fn readiness(status: &PodStatus) -> Kept {
    let holds = |kind| condition(status, kind).is_some_and(|one| one.status == "True");
    ensure(!holds("Ready") || holds("ContainersReady"), "ready without its containers", status)?;
    let ended = is_final(status) && (holds("Ready") || holds("ContainersReady"));
    ensure(!ended, "ready in a terminal phase", status)?;
    let regular = status.container_statuses.iter().flatten();
    let all = regular.into_iter().all(|one| one.ready);
    ensure(!holds("ContainersReady") || all, "ready containers that are not", status)
}

/// The conditions that are not what they were.
pub(super) fn changed(before: &PodStatus, next: &PodStatus) -> impl Iterator<Item = String> {
    let both =
        conditions(before).iter().filter_map(|old| Some((old, condition(next, &old.type_)?)));
    both.filter(|(old, new)| old.status != new.status).map(|(old, _)| old.type_.clone())
}

/// What has happened between two statuses.
#[derive(Debug, Default, Clone)]
pub(super) struct Between {
    /// Conditions that have changed, and perhaps back again.
    pub(super) changed: BTreeSet<String>,
    /// The pod has begun anew (KEP-5532), and did not run again before the second.
    pub(super) anew: bool,
}

/// What holds of two statuses that follow each other.
pub(super) fn after(before: &PodStatus, next: &PodStatus, between: &Between) -> Kept {
    let phases = (before.phase.as_deref().unwrap_or("Pending"), next.phase.as_deref());
    // Docs, "Pod phase": a terminal phase is final, and what ran once is not pending again.
    ensure(!is_final(before) || before.phase == next.phase, "left a terminal phase", &phases)?;
    let back = phases == ("Running", Some("Pending"));
    ensure(!back || between.anew, "pending after it ran", &phases)?;
    let why = |status: &PodStatus| (status.reason.clone(), status.message.clone());
    let kept = before.reason.is_none() || before.phase != next.phase || why(before) == why(next);
    ensure(kept, "another reason for the same phase", &(why(before), why(next)))?;
    // Types.go, startTime and observedGeneration.
    let since = before.start_time.is_none() || before.start_time == next.start_time;
    ensure(since, "another start", &(&before.start_time, &next.start_time))?;
    ensure(before.observed_generation <= next.observed_generation, "an older generation", next)?;
    for (old, new) in
        conditions(before).iter().filter_map(|old| Some((old, condition(next, &old.type_)?)))
    {
        let moved = old.last_transition_time != new.last_transition_time;
        // Types.go, lastTransitionTime. Two changes within a second have one time.
        ensure(
            !moved || between.changed.contains(&old.type_),
            "moved without a change",
            &(old, new),
        )?;
        ensure(old.last_transition_time <= new.last_transition_time, "moved back", &(old, new))?;
    }
    for old in containers(before) {
        if let Some(new) = containers(next).find(|new| new.name == old.name) {
            follows(old, new)?;
        }
    }
    Ok(())
}

/// Types.go, restartCount, containerID and lastState; the kubelet's `status_manager.go`, `checkContainerStateTransition`.
fn follows(old: &ContainerStatus, new: &ContainerStatus) -> Kept {
    let both = (old, new);
    ensure(old.restart_count <= new.restart_count, "fewer restarts", &both)?;
    let same_run = old.restart_count == new.restart_count;
    let same_id = old.container_id.is_none() || old.container_id == new.container_id;
    ensure(!same_run || same_id, "another container without a restart", &both)?;
    let state = |status: &ContainerStatus| status.state.clone().unwrap_or_default();
    let (was, is) = (state(old), state(new));
    ensure(
        !same_run || was.terminated.is_none() || is.running.is_none(),
        "ran on after its end",
        &both,
    )?;
    // A container that ran is known to have ended before it is said to wait.
    let last = new.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let lost = same_run && was.running.is_some() && is.waiting.is_some();
    let ended = last.is_some_and(|end| end.container_id == old.container_id);
    ensure(!lost || ended, "waits, and nobody knows how it ended", &both)?;
    let times = (was.running.as_ref(), is.running.as_ref());
    let (Some(was), Some(is)) = times else { return Ok(()) };
    ensure(!same_run || was == is, "began at another time", &both)
}
