//! From what a pod should be and what was seen of it to its `PodStatus`: pure.
//!
//! What must not be told never is: a terminal phase while a container may still run, a phase after a terminal one, a
//! transition time that moves without its condition. The API server checks none of this.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::condition;
use crate::container_status::{container_status, container_statuses, give_up, has_initialized};
use crate::epilogue;
use crate::failure::{Failure, Manner};
use crate::phase::{phase, settle};
use crate::record::{Phase, Record};

/// Why a container does not run, in the API's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is known of a pod at one moment.
pub(crate) struct Seen<'a> {
    pub(crate) record: &'a Record,
    /// By container name: only those that wait for something other than their turn.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// The pod was taken on, and its volumes have been there since this agent began.
    pub(crate) prepared: bool,
    /// The pod's addresses and the node's, which are the same in `shared` mode; primary first.
    pub(crate) addresses: &'a [String],
    pub(crate) now: Timestamp,
}

/// The status to publish after `previous`.
pub(crate) fn status(seen: &Seen<'_>, previous: &PodStatus) -> PodStatus {
    let pod = &seen.record.pod;
    if let Some(failure) = seen.record.failure.as_ref()
        && failure.manner == Manner::Rejected
    {
        return rejected(seen, failure, previous);
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let mut lists = Lists::of(seen, &spec);
    let failure = seen.record.failure.as_ref();
    let computed = match failure {
        Some(_) => "Failed",
        None => phase(&spec, &lists.init, &lists.containers, seen.record.phase),
    };
    let phase = settle(computed, previous, seen.record.phase);
    let failure = failure.filter(|_| phase == "Failed");
    let conditions = condition::all(&condition::Facts {
        pod,
        phase,
        stopped: seen.record.phase >= Phase::Terminated,
        prepared: seen.prepared || seen.record.has_begun(),
        init: &lists.init,
        containers: &lists.containers,
        previous: previous.conditions.as_deref().unwrap_or_default(),
        failure,
        restarting: seen.record.restarting,
        resize: &seen.record.resize,
        now: seen.now,
    });
    lists.finish();
    let Lists { init, containers, ephemeral } = lists;
    let kept =
        |text: &Option<String>| text.clone().filter(|_| previous.phase.as_deref() == Some(phase));
    PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(containers),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        phase: Some(phase.to_owned()),
        reason: failure.map(|failure| failure.reason.clone()).or(kept(&previous.reason)),
        message: failure.map(|failure| failure.message.clone()).or(kept(&previous.message)),
        start_time: Some(seconds(seen.record.start_time)),
        observed_generation: observed_generation(pod, previous),
        ..addresses(seen.addresses)
    }
}

/// A status that tells of the addresses alone.
fn addresses(all: &[String]) -> PodStatus {
    PodStatus {
        host_ip: all.first().cloned(),
        host_ips: Some(all.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: all.first().cloned(),
        pod_ips: Some(all.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        ..PodStatus::default()
    }
}

/// The statuses of all containers.
struct Lists {
    init: Vec<ContainerStatus>,
    containers: Vec<ContainerStatus>,
    ephemeral: Vec<ContainerStatus>,
}

impl Lists {
    /// In the order of the spec.
    fn of(seen: &Seen<'_>, spec: &PodSpec) -> Self {
        let init = container_statuses(seen, spec.init_containers.iter().flatten(), spec);
        let mut containers = container_statuses(seen, spec.containers.iter(), spec);
        if seen.record.phase >= Phase::Terminated && has_initialized(&init, &containers) {
            containers.iter_mut().for_each(give_up);
        }
        let ephemeral = crate::ephemeral::of(spec)
            .map(|container| container_status(seen, &container, false))
            .map(|status| ContainerStatus { ready: false, started: None, ..status })
            .collect();
        Self { init, containers, ephemeral }
    }

    /// As they are told: their messages within bounds, and by name but for init containers, whose order says something.
    fn finish(&mut self) {
        let all = self.init.iter_mut().chain(&mut self.containers).chain(&mut self.ephemeral);
        epilogue::bound(&mut all.collect::<Vec<_>>());
        for list in [&mut self.containers, &mut self.ephemeral] {
            list.sort_by(|one, other| one.name.cmp(&other.name));
        }
    }
}

/// Of a pod that was never taken on there is nothing else to tell.
fn rejected(seen: &Seen<'_>, failure: &Failure, previous: &PodStatus) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(failure.reason.clone()),
        message: Some(failure.message.clone()),
        start_time: Some(seconds(seen.record.start_time)),
        observed_generation: observed_generation(&seen.record.pod, previous),
        ..PodStatus::default()
    }
}

/// Never lower than what was published before.
fn observed_generation(pod: &Pod, previous: &PodStatus) -> Option<i64> {
    pod.metadata.generation.max(previous.observed_generation)
}

/// Kubernetes' times are whole seconds.
pub(crate) fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// A container's ID as the API shows it: `<runtime>://<id>`.
pub(crate) fn container_id(id: &str) -> String {
    format!("nodule://{id}")
}

#[cfg(test)]
mod tests;
