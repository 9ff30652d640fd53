//! A pod's volumes: set up by a task of the worker, kept true to what they are made of for as long as the pod runs.
//!
//! `needs` is asked in each turn and waits for nothing: it begins a [`job`](job::Job) when there is news, and says where the
//! volumes lie once all of them do. Read `job.rs` (one round), `project.rs` (what becomes a file), `token.rs`, `claim.rs`,
//! `bundle.rs`, `certificate/` (what the API server is asked for), `mounts.rs` (what a container gets of them). Images that are
//! volumes take another way: `image.rs`.

mod bundle;
mod certificate;
mod claim;
mod image;
mod job;
mod mounts;
mod patience;
mod project;
pub(crate) mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Volume};
use nodule_volume::{Change, Group, Site};

use crate::clock::moved;
use crate::events::Kind;
use crate::notice::Notice;
use crate::objects::{Answer, Key, Known};
use crate::restart::later;
use crate::worker::Worker;

pub(crate) use certificate::Metrics as CertificateMetrics;
use certificate::{Asked, Certificates, Spot};
pub(crate) use image::{Mounts, Pictures};
pub(crate) use job::Mounted;
pub(crate) use mounts::{image_mounts, mounts};
use token::Tokens;

/// Where each of the pod's volumes lies on the host, by name.
pub(crate) type Volumes = BTreeMap<String, PathBuf>;

/// The waits between two tries (the kubelet's `exponentialbackoff`).
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(122);
/// So long a pod waits for its volumes before that is told (the kubelet's `podAttachAndMountTimeout`).
const DEADLINE: Duration = Duration::from_secs(123);

/// What became of a request for the certificate at a place of the pod.
#[derive(Debug)]
pub(crate) struct Answered {
    spot: Spot,
    answer: certificate::Answer,
}

/// How far a pod's volumes are. Owned by its worker.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// All of them, once they were there. What goes wrong later takes none away.
    done: Option<Arc<Volumes>>,
    /// A job is under way.
    running: bool,
    /// What the last one was begun with.
    stamp: Option<Stamp>,
    /// When the next is due though nothing is new: after a failure, or for a token that ages.
    due: Option<Timestamp>,
    failures: u32,
    /// The volumes that were missing when the last job ended.
    missing: Vec<String>,
    /// When the pod began to wait; moved on each time that it is told.
    since: Option<Timestamp>,
    tokens: Tokens,
    certificates: Certificates,
    /// What became of requests for certificates since the last job began.
    answered: Vec<Answered>,
    /// What was told once and holds on.
    told: BTreeSet<String>,
}

impl State {
    /// The clock was set.
    pub(crate) fn move_by(&mut self, by: SignedDuration) {
        for time in [&mut self.due, &mut self.since] {
            *time = time.map(|time| moved(time, by));
        }
        self.tokens.move_by(by);
        self.certificates.move_by(by);
    }
}

/// What volumes are made of, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    answers: BTreeMap<Key, Option<(String, String)>>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    user: Option<u32>,
}

impl Stamp {
    fn of(pod: &Pod, known: &Known, user: Option<u32>) -> Self {
        let version = |answer: &Answer| match answer {
            Answer::Found(object) => Some(object.version.clone()),
            Answer::Unknown | Answer::Absent | Answer::Refused(_) => None,
        };
        let answers = known.answers.iter().map(|(key, answer)| (key.clone(), version(answer)));
        let meta = &pod.metadata;
        Self {
            answers: answers.collect(),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            user,
        }
    }
}

impl Worker {
    /// The pod's volumes, if all of them are there. Begins what has to be done about them.
    pub(crate) fn volumes(&mut self, known: &Known) -> Option<Arc<Volumes>> {
        if own(&self.record.pod).next().is_none() {
            return Some(Arc::default());
        }
        let now = Timestamp::now();
        if self.settle() && self.host.users.is_some() {
            // Before files are given to it.
            self.save();
        }
        let stamp = Stamp::of(&self.record.pod, known, self.record.user);
        let news = self.volumes.stamp.as_ref() != Some(&stamp);
        let due = self.volumes.due.is_some_and(|due| due <= now);
        let due = due || !self.volumes.answered.is_empty();
        if !self.volumes.running && (news || due) && self.is_told(known) {
            self.begin_volumes(known, stamp);
        }
        if self.volumes.done.is_none() {
            self.complain(now);
        }
        if let Some(due) = self.volumes.due.filter(|_| !self.volumes.running) {
            self.wake_at(due);
        }
        self.volumes.done.clone()
    }

    /// Whether the pod's volumes have been there, all of them, since this agent began.
    pub(crate) fn has_volumes(&self) -> bool {
        self.volumes.done.is_some() || own(&self.record.pod).next().is_none()
    }

    /// Whether a job of the volumes is under way: nothing may be removed under it.
    pub(crate) fn is_mounting(&self) -> bool {
        self.volumes.running
    }

    /// Whether the API server has answered for all that volumes are made of.
    fn is_told(&self, known: &Known) -> bool {
        let spec = self.record.pod.spec.as_ref();
        let volumes = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let namespace = self.record.pod.metadata.namespace.as_deref().unwrap_or_default();
        volumes.iter().flat_map(crate::objects::of_volume).all(|(kind, name)| {
            let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
            known.answers.get(&key).is_none_or(|answer| *answer != Answer::Unknown)
        })
    }

    fn begin_volumes(&mut self, known: &Known, stamp: Stamp) {
        self.volumes.running = true;
        self.volumes.stamp = Some(stamp);
        let job = job::Job {
            host: Arc::clone(&self.host),
            pod: Arc::clone(&self.record.pod),
            known: known.clone(),
            user: self.record.user,
            site: self.site(),
            tokens: std::mem::take(&mut self.volumes.tokens),
            certificates: std::mem::take(&mut self.volumes.certificates),
            answered: std::mem::take(&mut self.volumes.answered),
        };
        self.tasks.spawn(async move { Notice::Mounted(Box::new(job.run().await)) });
    }

    fn site(&self) -> Site {
        let pod = &self.record.pod;
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let group = context.and_then(|context| context.fs_group);
        let group = group.and_then(|id| u32::try_from(id).ok()).map(|id| Group { id });
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        Site {
            folder: self.folder.volumes(),
            memory: self.host.memory_of(pod),
            may_mount: self.host.config.may_mount,
            // Only root gives files away.
            group: group.filter(|_| self.host.users.is_some()),
            change: match policy {
                Some("OnRootMismatch") => Change::OnRootMismatch,
                Some(_) | None => Change::Always,
            },
        }
    }

    /// Takes in what a job came to.
    pub(crate) fn mounted(&mut self, mounted: Mounted) {
        let now = Timestamp::now();
        let state = &mut self.volumes;
        state.running = false;
        state.tokens = mounted.tokens;
        state.certificates = mounted.certificates;
        state.missing = mounted.failed.iter().map(|failure| failure.volume.clone()).collect();
        state.failures =
            if mounted.failed.is_empty() { 0 } else { state.failures.saturating_add(1) };
        let retry = (state.failures > 0).then(|| later(now, wait(state.failures)));
        state.due = [retry, mounted.due].into_iter().flatten().min();
        if mounted.failed.is_empty() {
            state.done = Some(Arc::new(mounted.volumes));
        }
        for note in mounted.notes {
            self.tell_volume(note.reason, &note.message);
        }
        self.await_answers(mounted.asked);
        for failure in mounted.failed.into_iter().filter(|failure| !failure.early) {
            self.tell_volume("FailedMount", &failure.message);
        }
        for warning in mounted.warnings {
            if self.volumes.told.insert(warning.clone()) {
                self.tell_volume("VolumeOnDisk", &warning);
            }
        }
    }

    /// Has the answers to requests for certificates waited for, for as long as this worker lives.
    fn await_answers(&mut self, asked: Vec<(Spot, Asked)>) {
        for (spot, asked) in asked {
            let (client, node) = (self.host.client.clone(), self.host.config.node.clone());
            let Some(client) = client else { continue };
            self.tasks.spawn(async move {
                let answer = certificate::answer(client, node, asked).await;
                Notice::Answered(Box::new(Answered { spot, answer }))
            });
        }
    }

    /// Takes in what became of a request for a certificate.
    pub(crate) fn answered(&mut self, answered: Answered) {
        self.volumes.answered.push(answered);
    }

    /// Tells now and then that the pod waits for its volumes.
    fn complain(&mut self, now: Timestamp) {
        let since = *self.volumes.since.get_or_insert(now);
        let due = later(since, DEADLINE);
        if now < due {
            return self.wake_at(due);
        }
        self.volumes.since = Some(now);
        let missing = &self.volumes.missing;
        let all = || own(&self.record.pod).map(|volume| volume.name.clone()).collect();
        let names = if missing.is_empty() { all() } else { missing.clone() };
        let message = format!(
            "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[]: context deadline exceeded",
            names.join(" ")
        );
        self.tell_volume("FailedMount", &message);
        self.wake_at(later(now, DEADLINE));
    }

    fn tell_volume(&self, reason: &'static str, message: &str) {
        self.host.events.say(&self.record.pod, None, Kind::Warning, reason, message);
    }
}

/// The wait after so many failures in a row.
fn wait(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT)
}

/// The volumes that are set up here: all but images.
fn own(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.image.is_none())
}

/// The volume of this name in a pod.
fn volume<'a>(pod: &'a Pod, name: &str) -> Option<&'a Volume> {
    pod.spec.as_ref()?.volumes.iter().flatten().find(|volume| volume.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_tried_again_after_half_a_second_and_then_half_as_often() {
        let waits: Vec<_> = (1..=10).map(|failures| wait(failures).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 122_000, 122_000]);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }
}
