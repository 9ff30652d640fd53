//! The conditions that are a node's to write: pure. Those of other owners are read, never written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use crate::failure::{Failure, Manner};
use crate::resize::{self, Resize};
use crate::restart::is_sidecar;
use crate::status::seconds;

/// What the conditions are made of.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) phase: &'a str,
    /// Nothing of the pod runs any more or will.
    pub(crate) stopped: bool,
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

const OURS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Said only of a pod that they are true of; the node takes them back.
pub(crate) const PASSING: [&str; 2] = [resize::PENDING, resize::IN_PROGRESS];
/// Said only of a pod that it is true of, or was.
const RESTARTING: &str = "AllContainersRestarting";
/// Said by whoever ends a pod for the sake of others (KEP-3329).
const DISRUPTION: &str = "DisruptionTarget";

/// The node's conditions of the pod.
pub(crate) fn all(facts: &Facts<'_>) -> Vec<PodCondition> {
    let verdicts = [
        if facts.stopped {
            Verdict { holds: false, reason: None, message: None }
        } else {
            Verdict::yes()
        },
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

/// KEP-5532.
fn restarting(facts: &Facts<'_>) -> Option<Verdict> {
    let told = facts.previous.iter().any(|known| known.type_ == RESTARTING);
    let verdict = Verdict { holds: facts.restarting, reason: None, message: None };
    (told || facts.restarting).then_some(verdict)
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
    let unready = facts.containers.iter().chain(sidecars).filter(|status| !status.ready);
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
    let holds =
        |kind: &str| others(facts.pod).any(|known| known.type_ == kind && known.status == "True");
    let gates = facts.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<String> = gates
        .filter(|gate| !holds(&gate.condition_type))
        .map(|gate| {
            format!(
                "corresponding condition of pod readiness gate \"{}\" is not \"True\".",
                gate.condition_type
            )
        })
        .collect();
    if closed.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", closed.join(", "))
    }
}
