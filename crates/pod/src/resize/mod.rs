//! Another share of the node for a pod that runs (KEP-1287): `kubectl patch pod --subresource resize`.
//!
//! *Wanted* is what the API server's spec says, *allocated* what the node has said yes to, and *actual* what a run has. The pod
//! in the record has what is allocated; what is wanted beyond that is kept beside it ([`Resize::pending`]), what a run has with
//! the run. The node says yes as soon as there is room ([`Worker::decide`]), then the containers are changed one by one (`apply.rs`).

mod apply;
mod resources;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Deserialize, Serialize};

pub(crate) use apply::{Applied, Applying};
pub(crate) use resources::{Resources, asks_for_restart, memory, resources};

use crate::admission::{Claim, Growth};
use crate::events::Kind;
use crate::record::Record;
use crate::worker::Worker;

/// Condition: the node has not said yes.
pub(crate) const PENDING: &str = "PodResizePending";
/// Condition: it has, and containers are being changed.
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// How far a pod's resize is; kept in its record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resize {
    /// What is wanted and not allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
    /// Runs have yet to get what is allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_progress: Option<InProgress>,
}

/// What is wanted and not allocated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) wanted: Resources,
    /// Why not; none before the node was asked.
    pub(crate) refusal: Option<Refusal>,
}

/// Why the node does not say yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// It never can; otherwise it will, when others have gone.
    pub(crate) infeasible: bool,
    pub(crate) message: String,
}

impl Refusal {
    /// Of the condition.
    pub(crate) fn reason(&self) -> &'static str {
        if self.infeasible { "Infeasible" } else { "Deferred" }
    }
}

/// Runs have yet to get what is allocated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InProgress {
    /// What went wrong at the last try.
    pub(crate) error: Option<String>,
}

impl Resize {
    /// For the record's file.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Record {
    /// Takes over the pod as the API server has it; but not more of the node than it was given.
    pub(crate) fn take_over(&mut self, pod: &Arc<Pod>) {
        let (given, wanted) = (Resources::of(&self.pod), Resources::of(pod));
        if !self.admitted || given == wanted {
            self.resize.pending = None;
            self.pod = Arc::clone(pod);
            return;
        }
        let before = self.resize.pending.take().filter(|before| before.wanted == wanted);
        let pending = before.unwrap_or(Pending { wanted, refusal: None });
        self.resize.pending = Some(pending);
        self.pod = Arc::new(given.given_to(pod));
    }
}

impl Worker {
    /// Brings the pod's share of the node nearer to what is wanted.
    pub(crate) fn resize(&mut self) {
        self.decide();
        self.apply();
    }

    fn decide(&mut self) {
        let Some(pending) = self.record.resize.pending.clone() else { return };
        let pod = pending.wanted.given_to(&self.record.pod);
        match self.host.node().map_or(Ok(()), |node| self.ask_for(&pod, &pending.wanted, &node)) {
            Ok(()) => self.allocate(pod),
            Err(refusal) => self.postpone(&pod, pending, refusal),
        }
    }

    fn ask_for(&self, pod: &Pod, wanted: &Resources, node: &Node) -> Result<(), Refusal> {
        let has = Resources::of(&self.record.pod);
        if !self.host.groups.are_there() && resources::needs_groups(&has, wanted) {
            let message =
                "this node has no cgroups: it cannot keep limits of CPUs, or of a pod as a whole";
            return Err(Refusal { infeasible: true, message: message.to_owned() });
        }
        let refused = |infeasible, message| Err(Refusal { infeasible, message });
        match self.host.ledger.grow(self.uid(), &Claim::of(pod), node) {
            Growth::Given => Ok(()),
            Growth::Later(message) => refused(false, message),
            Growth::Never(message) => refused(true, message),
        }
    }

    fn allocate(&mut self, pod: Pod) {
        self.record.pod = Arc::new(pod);
        self.record.resize = Resize { pending: None, in_progress: Some(InProgress::default()) };
        self.applying.restart();
        if self.save() {
            self.tell_resize(Kind::Normal, "ResizeStarted", "started", None);
        }
    }

    fn postpone(&mut self, wanted: &Pod, pending: Pending, refusal: Refusal) {
        if pending.refusal.as_ref() == Some(&refusal) {
            return;
        }
        let reason = if refusal.infeasible { "ResizeInfeasible" } else { "ResizeDeferred" };
        let told = resources::told(wanted, Some(&refusal.message));
        let message = format!("Pod resize {}: {told}", refusal.reason());
        let news =
            pending.refusal.as_ref().is_none_or(|before| before.infeasible != refusal.infeasible);
        self.record.resize.pending = Some(Pending { refusal: Some(refusal), ..pending });
        self.save();
        if news {
            self.host.events.say(&self.record.pod, None, Kind::Warning, reason, &message);
        }
    }

    /// Tells of what is allocated.
    fn tell_resize(&self, kind: Kind, reason: &'static str, word: &str, error: Option<&str>) {
        let pod = &self.record.pod;
        let told = resources::told(pod, error);
        self.host.events.say(pod, None, kind, reason, &format!("Pod resize {word}: {told}"));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn pod(memory: &str, image: &str) -> Arc<Pod> {
        let resources = json!({"limits": {"memory": memory}});
        let container = json!({"name": "a", "image": image, "resources": resources});
        Arc::new(serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap())
    }

    #[test]
    fn a_pod_keeps_what_it_was_given_until_the_node_says_yes() {
        let mut record = Record::new(pod("1Mi", "one"), Timestamp::UNIX_EPOCH);
        record.take_over(&pod("2Mi", "one"));
        assert_eq!((&record.pod, &record.resize), (&pod("2Mi", "one"), &Resize::default()));
        record.admitted = true;
        record.take_over(&pod("3Mi", "two"));
        assert_eq!(record.pod, pod("2Mi", "two"));
        let wanted = Resources::of(&pod("3Mi", "two"));
        assert_eq!(record.resize.pending, Some(Pending { wanted, refusal: None }));
        let refusal = Some(Refusal { infeasible: false, message: "m".to_owned() });
        record.resize.pending.as_mut().unwrap().refusal.clone_from(&refusal);
        // The same wish is no new one.
        record.take_over(&pod("3Mi", "three"));
        assert_eq!(record.resize.pending.as_ref().unwrap().refusal, refusal);
        record.take_over(&pod("4Mi", "three"));
        assert_eq!(record.resize.pending.as_ref().unwrap().refusal, None);
        record.take_over(&pod("2Mi", "three"));
        assert!(record.resize.is_nothing());
    }
}
