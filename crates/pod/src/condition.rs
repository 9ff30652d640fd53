//! The conditions that are a node's to write: pure. Those of other owners are read, never written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::failure::{Failure, Manner};
use crate::resize::{self, Resize};
use crate::restart::{is_sidecar, may_restart_all};
use crate::status::seconds;

/// What the conditions are made of.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) phase: &'a str,
    /// Nothing of the pod runs any more or will.
    pub(crate) stopped: bool,
    /// What all containers stand on is there.
    pub(crate) prepared: bool,
    /// In the order of the spec, as `containers`.
    pub(crate) init: &'a [ContainerStatus],
    pub(crate) containers: &'a [ContainerStatus],
    pub(crate) previous: &'a [PodCondition],
    /// Why the node ends the pod.
    pub(crate) failure: Option<&'a Failure>,
    /// All containers are to run again.
    pub(crate) restarting: bool,
    pub(crate) resize: &'a Resize,
    pub(crate) now: Timestamp,
}

/// Whether a condition holds, and if not, why.
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn because(holds: bool, reason: &'static str) -> Self {
        Self { holds, reason: Some(reason), message: None }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { holds: false, reason: Some(reason), message: Some(message) }
    }
}

const OURS: [&str; 5] = [TO_START, "Initialized", "Ready", "ContainersReady", "PodScheduled"];
/// What all containers stand on is there (KEP-3085).
const TO_START: &str = "PodReadyToStartContainers";

/// Said only of a pod that they are true of; the node takes them back.
pub(crate) const PASSING: [&str; 2] = [resize::PENDING, resize::IN_PROGRESS];
/// Said only of a pod that it may become true of.
const RESTARTING: &str = "AllContainersRestarting";
/// Said by whoever ends a pod for the sake of others (KEP-3329).
const DISRUPTION: &str = "DisruptionTarget";

/// The node's conditions of the pod.
pub(crate) fn all(facts: &Facts<'_>) -> Vec<PodCondition> {
    let verdicts = [
        ready_to_start(facts),
        initialized(facts),
        ready(facts),
        containers_ready(facts),
        Verdict::yes(),
    ];
    let always = OURS.iter().zip(verdicts).map(|(kind, verdict)| condition(facts, kind, verdict));
    let restarting = restarting(facts).map(|verdict| condition(facts, RESTARTING, verdict));
    let disruption = disruption(facts).map(|verdict| condition(facts, DISRUPTION, verdict));
    let resize = resizing(facts).map(|(kind, verdict)| condition(facts, kind, verdict));
    always.chain(restarting).chain(disruption).chain(resize).collect()
}

/// A pod has no sandbox here; the kubelet makes that when the volumes are there, and before it pulls images. Once it is there it
/// stays for as long as the pod runs.
fn ready_to_start(facts: &Facts<'_>) -> Verdict {
    let was = facts.previous.iter().any(|known| known.type_ == TO_START && known.status == "True");
    let holds = !facts.stopped && (facts.prepared || was);
    Verdict { holds, reason: None, message: None }
}

/// KEP-5532: said of every pod that can be brought to it.
fn restarting(facts: &Facts<'_>) -> Option<Verdict> {
    let told = facts.previous.iter().any(|known| known.type_ == RESTARTING);
    let verdict = match facts.phase {
        "Succeeded" => Verdict::because(false, "PodCompleted"),
        "Failed" => Verdict::because(false, "PodFailed"),
        _ if facts.restarting => Verdict {
            holds: true,
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
        },
        _ => Verdict { holds: false, reason: None, message: None },
    };
    (told || facts.restarting || may_restart_all(facts.pod)).then_some(verdict)
}

/// KEP-1287: said only of a pod that it is true of.
fn resizing(facts: &Facts<'_>) -> impl Iterator<Item = (&'static str, Verdict)> {
    let refusal = facts.resize.pending.as_ref().and_then(|pending| pending.refusal.as_ref());
    let pending = refusal.map(|refusal| {
        let (reason, message) = (Some(refusal.reason()), Some(refusal.message.clone()));
        (resize::PENDING, Verdict { holds: true, reason, message })
    });
    let in_progress = facts.resize.in_progress.as_ref().map(|progress| {
        let message = progress.error.clone();
        let reason = message.is_some().then_some("Error");
        (resize::IN_PROGRESS, Verdict { holds: true, reason, message })
    });
    pending.into_iter().chain(in_progress)
}

/// Told together with the terminal phase, and not before.
fn disruption(facts: &Facts<'_>) -> Option<Verdict> {
    let failure = facts.failure.filter(|failure| failure.manner == Manner::Disrupted)?;
    (facts.phase == "Failed").then(|| Verdict {
        holds: true,
        reason: Some("TerminationByKubelet"),
        message: Some(failure.message.clone()),
    })
}

/// The conditions that others have put on the pod.
pub(crate) fn others(pod: &Pod) -> impl Iterator<Item = &PodCondition> {
    let known = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ours = |kind: &str| kind == RESTARTING || OURS.contains(&kind) || PASSING.contains(&kind);
    known.filter(move |known| !ours(&known.type_))
}

/// A status whose conditions have held for as long as was shown before, where they are the same.
pub(crate) fn aged(status: &PodStatus, shown: Option<&PodStatus>) -> PodStatus {
    let mut status = status.clone();
    let known = || shown.into_iter().flat_map(|shown| shown.conditions.iter().flatten());
    for own in status.conditions.iter_mut().flatten() {
        let same = known().find(|known| known.type_ == own.type_ && known.status == own.status);
        own.last_transition_time = same
            .and_then(|same| same.last_transition_time.clone())
            .or(own.last_transition_time.take());
    }
    status
}

/// The pod's conditions as a whole: the node's, and those of others that it does not speak of itself.
pub(crate) fn whole(ours: &[PodCondition], pod: &Pod) -> Vec<PodCondition> {
    let unsaid = |other: &&PodCondition| ours.iter().all(|known| known.type_ != other.type_);
    ours.iter().chain(others(pod).filter(unsaid)).cloned().collect()
}

fn condition(facts: &Facts<'_>, kind: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let same = facts.previous.iter().find(|known| known.type_ == kind && known.status == status);
    let kept = same.and_then(|known| known.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: kept.or_else(|| Some(seconds(facts.now))),
        last_probe_time: None,
        observed_generation: facts.pod.metadata.generation,
    }
}

fn initialized(facts: &Facts<'_>) -> Verdict {
    if facts.phase == "Succeeded" {
        return Verdict::because(true, "PodCompleted");
    }
    let any_ran = facts.containers.iter().any(|status| {
        let ran = |state: &k8s_openapi::api::core::v1::ContainerState| {
            state.running.is_some() || state.terminated.is_some()
        };
        status.state.as_ref().is_some_and(ran) || status.last_state.as_ref().is_some_and(ran)
    });
    let spec = facts.pod.spec.as_ref();
    let containers = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let waited_for = containers.zip(facts.init).filter(|(container, status)| {
        if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
    });
    let names: Vec<&str> = waited_for.map(|(container, _)| container.name.as_str()).collect();
    if any_ran || names.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", names.join(" ")),
    )
}

fn containers_ready(facts: &Facts<'_>) -> Verdict {
    match facts.phase {
        "Succeeded" => return Verdict::because(false, "PodCompleted"),
        "Failed" => return Verdict::because(false, "PodFailed"),
        _ => {}
    }
    let spec = facts.pod.spec.as_ref();
    let init = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = init
        .zip(facts.init)
        .filter(|(container, _)| is_sidecar(container))
        .map(|(_, status)| status);
    let unready = sidecars.chain(facts.containers).filter(|status| !status.ready);
    let names: Vec<&str> = unready.map(|status| status.name.as_str()).collect();
    if names.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        "ContainersNotReady",
        format!("containers with unready status: [{}]", names.join(" ")),
    )
}

fn ready(facts: &Facts<'_>) -> Verdict {
    let containers = containers_ready(facts);
    if !containers.holds {
        return containers;
    }
    let gates = facts.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<String> =
        gates.filter_map(|gate| closed(facts.pod, &gate.condition_type)).collect();
    if closed.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", closed.join(", "))
    }
}

/// Why a readiness gate is closed, in the kubelet's words; none if it is open.
fn closed(pod: &Pod, gate: &str) -> Option<String> {
    let Some(known) = others(pod).find(|known| known.type_ == gate) else {
        return Some(format!(
            "corresponding condition of pod readiness gate {gate:?} does not exist."
        ));
    };
    let status = &known.status;
    (status != "True")
        .then(|| format!("the status of pod readiness gate {gate:?} is not \"True\", but {status}"))
}
