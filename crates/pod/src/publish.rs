//! Brings a pod's status to the API server, and at the end asks it to remove the pod. `sink.rs` knows which object shows it.
//!
//! One task a pod, the newest status only: what was never sent and is no longer true is never sent. An API server that is
//! away delays this task and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::condition::PASSING;
use crate::crash;
use crate::sink::{Sink, Target};

/// Waits between tries while the API server is away or refuses: jittered, doubling to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What the API server should know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) status: Option<Arc<PodStatus>>,
    /// The version of the object in which somebody else has written over the status: it is to be said again.
    pub(crate) over: Option<u64>,
    /// After the status, remove the object: nothing of the pod is left on this node.
    pub(crate) delete: bool,
}

/// What the API server is known to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) status: Option<Arc<PodStatus>>,
    /// The version of the object that has this status.
    pub(crate) version: Option<u64>,
    /// The object is gone, or another pod has its name now.
    pub(crate) gone: bool,
}

/// A pod's line to the API server.
pub(crate) struct Publisher {
    pub(crate) sink: Sink,
    /// Requests that all pods together may have under way.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) wanted: watch::Receiver<Wanted>,
    pub(crate) known: watch::Sender<Known>,
    /// The UID of the object that `known` speaks of.
    pub(crate) told: String,
}

impl Publisher {
    /// Runs until the object is gone or nobody wants anything any more.
    pub(crate) async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            match self.bring(&wanted).await {
                Ok(()) if self.known.borrow().gone => return,
                Ok(()) => wait = FIRST_WAIT,
                Err(error) => {
                    self.complain(&error);
                    let jittered = wait.mul_f64(rand::random_range(0.75..1.25));
                    sleep(jittered.max(left_alone(&error))).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                    continue;
                }
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = self.sink.changed() => {}
            }
        }
    }

    /// An API server that is away is the watch's to tell, once; what it refuses is this pod's.
    fn complain(&self, error: &kube::Error) {
        let refused =
            matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429);
        if refused {
            warn!(error = error as &dyn std::error::Error, "pod status refused");
        } else {
            debug!(error = error as &dyn std::error::Error, "pod status not sent");
        }
    }

    async fn bring(&mut self, wanted: &Wanted) -> Result<(), kube::Error> {
        let Some(target) = self.sink.target() else { return Ok(()) };
        self.turn_to(&target);
        let Ok(_slot) = Arc::clone(&self.slots).acquire_owned().await else { return Ok(()) };
        let news = wanted.status.as_ref().filter(|status| self.is_news(status, wanted, &target));
        if let Some(status) = news {
            crash::point();
            self.patch(&target, status).await?;
            crash::point();
        }
        if wanted.delete && self.sink.is_the_pod() && !self.known.borrow().gone {
            crash::point();
            self.delete(&target).await?;
            crash::point();
        }
        Ok(())
    }

    /// A mirror that was made anew knows nothing.
    fn turn_to(&mut self, target: &Target) {
        if self.told != target.uid {
            self.told.clone_from(&target.uid);
            self.known.send_modify(|known| *known = Known::default());
        }
    }

    fn is_news(&self, status: &Arc<PodStatus>, wanted: &Wanted, target: &Target) -> bool {
        let known = self.known.borrow();
        let overwritten = target.shown.as_ref().is_some_and(|(version, shown)| {
            *version > known.version && is_overwritten(shown, status)
        });
        let said_again = self.sink.is_the_pod() && wanted.over > known.version;
        known.status.as_ref() != Some(status) || said_again || overwritten
    }

    async fn patch(&self, target: &Target, status: &Arc<PodStatus>) -> Result<(), kube::Error> {
        let shown = target.shown.iter().map(|(_, shown)| shown).flat_map(told);
        let known = self.known.borrow().status.clone();
        let taken_back = shown.chain(known.iter().flat_map(|known| told(known)));
        let patch = Patch::Strategic(patch(&target.uid, status, taken_back));
        match target.api.patch_status(&target.name, &PatchParams::default(), &patch).await {
            Ok(pod) => {
                self.known.send_modify(|known| {
                    known.status = Some(Arc::clone(status));
                    known.version = version(&pod);
                });
                Ok(())
            }
            Err(error) => self.gone_or(error),
        }
    }

    async fn delete(&self, target: &Target) -> Result<(), kube::Error> {
        let uid = Preconditions { uid: Some(target.uid.clone()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(uid),
            ..DeleteParams::default()
        };
        match target.api.delete(&target.name, &params).await {
            Ok(_) => {
                self.known.send_modify(|known| known.gone = true);
                Ok(())
            }
            Err(error) => self.gone_or(error),
        }
    }

    /// 404: no pod of that name. 409 (delete) and 422 (patch, "field is immutable"): another one has it. A static pod runs
    /// on without its mirror: the next one is told all.
    fn gone_or(&self, error: kube::Error) -> Result<(), kube::Error> {
        let gone = matches!(
            &error,
            kube::Error::Api(status) if status.code == 404 || names_uid(status.code, &status.message)
        );
        if !gone {
            return Err(error);
        }
        if self.sink.is_the_pod() {
            self.known.send_modify(|known| known.gone = true);
        }
        Ok(())
    }
}

/// The version of an object, which grows with each change (KEP-5504: resource versions compare as numbers).
pub(crate) fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref()?.parse().ok()
}

/// Whether the API server shows another phase or other conditions than were sent: the node controller writes over those of a
/// node that it has not heard from (`MarkPodsNotReady`).
pub(crate) fn is_overwritten(shown: &PodStatus, sent: &PodStatus) -> bool {
    let conditions = |status: &PodStatus| status.conditions.clone().unwrap_or_default();
    let shown_conditions = conditions(shown);
    shown.phase != sent.phase
        || conditions(sent).iter().any(|ours| {
            !shown_conditions
                .iter()
                .any(|other| other.type_ == ours.type_ && other.status == ours.status)
        })
}

/// Of the conditions that come and go, those that are told.
fn told(status: &PodStatus) -> impl Iterator<Item = &str> {
    let all = status.conditions.iter().flatten().map(|condition| condition.type_.as_str());
    all.filter(|kind| PASSING.contains(kind))
}

/// How long the API server asks to be left alone: what its `Retry-After` header says, too.
fn left_alone(error: &kube::Error) -> Duration {
    let kube::Error::Api(status) = error else { return Duration::ZERO };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.into())
}

fn names_uid(code: u16, message: &str) -> bool {
    matches!(code, 409 | 422) && message.to_ascii_lowercase().contains("uid")
}

/// The strategic merge patch: all fields that are a node's to write, the absent ones cleared; `qosClass` and what other
/// owners write untouched. The UID makes it a patch of this very pod.
fn patch<'a>(uid: &str, status: &PodStatus, shown: impl Iterator<Item = &'a str>) -> Value {
    let mut fields = json!(status);
    if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.iter_mut().filter_map(Value::as_object_mut).for_each(clear);
        let still: BTreeSet<&str> = told(status).collect();
        let gone: BTreeSet<&str> = shown.filter(|kind| !still.contains(kind)).collect();
        conditions.extend(gone.iter().map(|kind| json!({"type": kind, "$patch": "delete"})));
    }
    if let Some(fields) = fields.as_object_mut() {
        clear(fields);
    }
    json!({"metadata": {"uid": uid}, "status": fields})
}

/// What is left out of a merge patch stays as it was: a condition that holds would keep why it once did not.
fn clear(fields: &mut Map<String, Value>) {
    for cleared in ["reason", "message"] {
        fields.entry(cleared).or_insert(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;

    use super::*;

    #[test]
    fn a_patch_names_its_pod_clears_what_is_absent_and_leaves_the_qos_class() {
        let status = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
        let patch = patch("u-1", &status, std::iter::empty());
        let wanted = json!({"metadata": {"uid": "u-1"}, "status": {"phase": "Running", "reason": null, "message": null}});
        assert_eq!(patch, wanted);
    }

    #[test]
    fn a_condition_that_holds_loses_why_it_did_not() {
        let ready = PodCondition { status: "True".to_owned(), ..Default::default() };
        let status = PodStatus { conditions: Some(vec![ready]), ..Default::default() };
        let patch = patch("u-1", &status, std::iter::empty());
        let told = &patch["status"]["conditions"][0];
        for key in ["reason", "message"] {
            assert_eq!(told.get(key), Some(&Value::Null), "{key}");
        }
    }

    #[test]
    fn a_condition_that_has_gone_is_taken_back() {
        let condition = |kind: &str| PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            ..Default::default()
        };
        let status = PodStatus {
            conditions: Some(vec![condition("Ready"), condition(PASSING[1])]),
            ..Default::default()
        };
        let patch = patch("u-1", &status, PASSING.into_iter());
        let told = &patch["status"]["conditions"];
        assert_eq!(told.as_array().unwrap().len(), 3);
        assert_eq!(told[2], json!({"type": "PodResizePending", "$patch": "delete"}));
    }

    #[test]
    fn only_a_conflict_over_the_uid_means_another_pod() {
        assert!(names_uid(
            422,
            "Pod \"a\" is invalid: metadata.uid: Invalid value: field is immutable"
        ));
        assert!(names_uid(
            409,
            "Precondition failed: UID in precondition: u-1, UID in object meta: u-2"
        ));
        assert!(!names_uid(409, "the object has been modified"));
        assert!(!names_uid(500, "uid"));
    }
}
