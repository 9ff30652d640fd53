//! Why a node ends a pod that did not end by itself, or never takes it on.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::clock::moved;
use crate::events::Kind;
use crate::record::Phase;
use crate::restart::later;
use crate::worker::Worker;

/// `status.reason` and `status.message` of a pod that has `Failed` by its node, and what goes with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The grace period in seconds; none for the pod's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grace: Option<u64>,
    #[serde(default, skip_serializing_if = "Manner::is_ended")]
    pub(crate) manner: Manner,
    /// Of its Event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// How the node came to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Manner {
    /// By something of the pod's own making.
    #[default]
    Ended,
    /// For the sake of the node or of other pods: the pod gets the condition `DisruptionTarget` (KEP-3329).
    Disrupted,
    /// It was never taken on.
    Rejected,
}

/// What the status says before the reason of a rejection, and the Event does not.
const REJECTED: &str = "Pod was rejected: ";

impl Manner {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_ended(&self) -> bool {
        *self == Self::Ended
    }
}

impl Failure {
    /// Uses more of the disk than it may: gone at once (the kubelet's `immediateEvictionGracePeriodSeconds`).
    pub(crate) fn evicted(message: String) -> Self {
        Self {
            reason: "Evicted".to_owned(),
            message,
            grace: Some(1),
            manner: Manner::Ended,
            annotations: BTreeMap::new(),
        }
    }

    /// Never taken on.
    pub(crate) fn rejected(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: format!("{REJECTED}{message}"),
            grace: None,
            manner: Manner::Rejected,
            annotations: BTreeMap::new(),
        }
    }

    /// Makes room for a critical pod.
    pub(crate) fn preempted() -> Self {
        Self {
            reason: "Preempting".to_owned(),
            message: "Preempted in order to admit critical pod".to_owned(),
            grace: None,
            manner: Manner::Disrupted,
            annotations: BTreeMap::new(),
        }
    }

    /// The machine is shut down, in so much time at most.
    pub(crate) fn shutdown(grace: Duration) -> Self {
        Self {
            reason: "Terminated".to_owned(),
            message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
            grace: Some(grace.as_secs()),
            manner: Manner::Disrupted,
            annotations: BTreeMap::new(),
        }
    }

    /// Active for longer than `activeDeadlineSeconds`.
    fn deadline() -> Self {
        Self {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            grace: None,
            manner: Manner::Ended,
            annotations: BTreeMap::new(),
        }
    }
}

/// When the pod has been active for as long as it may be.
fn deadline(pod: &Pod, start: Timestamp) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(later(start, Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

impl Worker {
    /// Ends the pod in the node's own right. Kept before it is acted on; but a disk that is too full to keep it on is one
    /// more reason to act, and the next agent would come to the same.
    pub(crate) fn fail(&mut self, failure: Failure, kind: Kind) {
        info!(failure.reason, failure.message, "pod is ended by its node");
        let message = failure.message.strip_prefix(REJECTED).unwrap_or(&failure.message);
        let (pod, reason) = (&self.record.pod, failure.reason.clone());
        self.host.events.say_annotated(pod, &failure.annotations, kind, reason, message);
        self.record.failure = Some(failure);
        self.save();
        self.wake_at(Timestamp::now());
    }

    /// Ends the pod when its `activeDeadlineSeconds` are over.
    pub(crate) fn expire(&mut self) {
        if self.record.phase != Phase::Syncing || self.is_to_end() {
            return;
        }
        match deadline(&self.record.pod, moved(self.record.start_time, self.record.set)) {
            Some(due) if due <= Timestamp::now() => self.fail(Failure::deadline(), Kind::Normal),
            Some(due) => self.wake_at(due),
            None => {}
        }
    }
}
