//! What must outlive the agent: one file a pod, written before what it records is acted on.
//!
//! Written to a temporary file and renamed, so that it is whole after a kill at any point. It is not synced: a crash of
//! the machine ends every pod anyway, and the API server has their last status.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, Pod, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::crash;
use crate::failure::Failure;
use crate::probe::health::Health;
use crate::resize::Resize;
use crate::restart::Backoff;

/// The form of the record. A later agent reads every earlier form. Within one form fields may be added: an agent that does not
/// know one ignores it and writes the record without it, so that its absence must always be safe, and what must not be ignored
/// is a new form.
const VERSION: u32 = 1;
const FILE: &str = "record.json";

/// Where a pod is in its life on this node. It only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Should run: every step of `sync` is taken until all hold.
    Syncing,
    /// Should end: no container starts any more, those running are stopped.
    Terminating,
    /// Nothing runs: what the pod used is given back.
    Terminated,
    /// Nothing is left; the worker ends.
    Gone,
}

/// All that this node knows of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The pod as it was last acted on: with the resources that the node has given it.
    pub(crate) pod: Arc<Pod>,
    pub(crate) phase: Phase,
    /// `status.startTime`: when this node first saw the pod.
    pub(crate) start_time: Timestamp,
    /// How the clock was set when these times were counted from; records of before have no word of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<Clock>,
    /// By how much it was set since `start_time`.
    #[serde(default, skip_serializing_if = "SignedDuration::is_zero")]
    pub(crate) set: SignedDuration,
    /// Set when the pod is first told to end; its grace only shrinks.
    pub(crate) stop: Option<Stop>,
    /// Why this node itself ends the pod. Set once, before the pod is told to end; records of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    /// The user that the pod's processes become where they are not told another; none until the first is to run.
    #[serde(default)]
    pub(crate) user: Option<u32>,
    /// The node has taken the pod on; records of before it was asked have no word of it.
    #[serde(default = "yes")]
    pub(crate) admitted: bool,
    /// A container has asked for all of them to run again: none is started before all have ended.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(crate) restarting: bool,
    /// Another share of the node that the pod is to have.
    #[serde(default, skip_serializing_if = "Resize::is_nothing")]
    pub(crate) resize: Resize,
    /// The images of the pod's volumes, by volume: `REPOSITORY@sha256:…`. Each is chosen once, and is in use for as long as
    /// there is this record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) images: BTreeMap<String, String>,
    /// By container name, init containers among them.
    pub(crate) containers: BTreeMap<String, History>,
}

/// That the pod has been told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) since: Timestamp,
    /// Seconds from `since` until what still runs is killed.
    pub(crate) grace: u64,
}

/// A container's runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct History {
    /// The newest.
    pub(crate) run: Option<Run>,
    /// How the one before ended.
    pub(crate) last: Option<ContainerStateTerminated>,
    pub(crate) backoff: Option<Backoff>,
    /// The newest run does not count any more: the container runs again, whatever its policy says of how it ended.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(crate) again: bool,
    /// What probes and hooks have found of the newest run; none where an agent of before has begun it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Health>,
}

/// One run of a container: one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Counts from 0; `status.restartCount`.
    pub(crate) attempt: u32,
    /// 64 hex digits; none where only the API server remembers this run.
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) process: Option<nodule_sandbox_proto::Process>,
    /// Whom the process became; none if it stayed what the agent is.
    #[serde(default)]
    pub(crate) user: Option<nodule_sandbox_proto::User>,
    /// What it was given; none where an agent of before has begun it, and where only the API server remembers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<ResourceRequirements>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) end: Option<ContainerStateTerminated>,
    /// By how much the clock was set since it ended; or, while it has not, since it started.
    #[serde(default, skip_serializing_if = "SignedDuration::is_zero")]
    pub(crate) set: SignedDuration,
}

impl Record {
    /// Of a pod that this node has no record of. Containers that its status speaks of ran under an agent whose records
    /// are lost: they are taken as vanished, and counted.
    pub(crate) fn new(pod: Arc<Pod>, now: Timestamp) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        Self {
            version: VERSION,
            phase: if ended { Phase::Terminated } else { Phase::Syncing },
            start_time: status.start_time.as_ref().map_or(now, |time| time.0),
            clock: None,
            set: SignedDuration::ZERO,
            stop: None,
            failure: None,
            user: None,
            admitted: false,
            restarting: false,
            resize: Resize::default(),
            images: BTreeMap::new(),
            containers: histories(&status, now),
            pod,
        }
    }

    /// The newest run of a container.
    pub(crate) fn run(&self, container: &str) -> Option<&Run> {
        self.containers.get(container)?.run.as_ref()
    }

    /// Whether any container was ever begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.containers.values().any(|history| history.run.is_some())
    }

    /// The newest run of a container, if it counts.
    pub(crate) fn counted(&self, container: &str) -> Option<&Run> {
        self.containers.get(container)?.counted()
    }

    /// The newest run of a container, to be changed by the worker alone.
    pub(crate) fn run_mut(&mut self, container: &str) -> Option<&mut Run> {
        self.containers.get_mut(container)?.run.as_mut()
    }
}

impl History {
    /// The newest run, if it counts.
    pub(crate) fn counted(&self) -> Option<&Run> {
        self.run.as_ref().filter(|_| !self.again)
    }
}

/// Left out of the file.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_not(value: &bool) -> bool {
    !value
}

fn yes() -> bool {
    true
}

fn histories(status: &PodStatus, now: Timestamp) -> BTreeMap<String, History> {
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let known = lists.into_iter().flatten().flatten();
    known.filter_map(|known| Some((known.name.clone(), history(known, now)?))).collect()
}

fn history(status: &ContainerStatus, now: Timestamp) -> Option<History> {
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.clone().unwrap_or_default().terminated;
    let vanished = |started_at| ContainerStateTerminated {
        container_id: status.container_id.clone(),
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("the node lost its record of this container".to_owned()),
        started_at,
        finished_at: Some(Time(now)),
        ..ContainerStateTerminated::default()
    };
    let (end, last) = match (state.running, state.terminated) {
        (Some(running), _) => (vanished(running.started_at), last),
        (None, Some(end)) => (end, last),
        (None, None) => (last?, None),
    };
    let run = Run {
        attempt: u32::try_from(status.restart_count).unwrap_or_default(),
        id: String::new(),
        image: status.image.clone(),
        image_id: status.image_id.clone(),
        process: None,
        user: None,
        resources: None,
        started: end.started_at.as_ref().map(|time| time.0),
        end: Some(end),
        set: SignedDuration::ZERO,
    };
    Some(History { run: Some(run), last, ..History::default() })
}

/// Why a record could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("parse {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{} has the form {found}, this agent knows {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Group(nodule_cgroup::Error),
    #[error(transparent)]
    Unmount(nodule_volume::MemoryError),
    #[error(transparent)]
    Folder(nodule_volume::RemoveError),
}

/// A pod's folder, and what its record says.
pub(crate) type Kept = (Folder, Result<Record, Error>);

/// A pod's folder below the agent's root: `pods/<uid>`.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: &Path, uid: &str) -> Self {
        Self { path: root.join("pods").join(uid) }
    }

    /// Every pod that has a folder, with its record or why it cannot be read.
    pub(crate) fn all(root: &Path) -> Result<Vec<Kept>, Error> {
        let path = root.join("pods");
        let read = |source| Error::Read { path: path.clone(), source };
        std::fs::create_dir_all(&path)
            .map_err(|source| Error::Write { path: path.clone(), source })?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(read)? {
            let folder = Self { path: entry.map_err(read)?.path() };
            let record = folder.load();
            found.push((folder, record));
        }
        Ok(found)
    }

    /// The UIDs of all pods that something is kept of, readable or not.
    pub(crate) fn uids(root: &Path) -> HashSet<String> {
        let entries = std::fs::read_dir(root.join("pods")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The state folder of one run of a container.
    pub(crate) fn run(&self, container: &str, attempt: u32) -> PathBuf {
        self.containers().join(container).join(attempt.to_string())
    }

    /// The pod's UID.
    pub(crate) fn uid(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where the containers have their state folders.
    pub(crate) fn containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    /// Where the pod's own volumes lie.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// Where the files of the guests' `/etc` lie.
    pub(crate) fn etc(&self) -> PathBuf {
        self.path.join("etc")
    }

    pub(crate) fn load(&self) -> Result<Record, Error> {
        let path = self.path.join(FILE);
        let text =
            std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let record: Record = serde_json::from_slice(&text)
            .map_err(|source| Error::Parse { path: path.clone(), source })?;
        if record.version != VERSION {
            return Err(Error::Version { path, found: record.version });
        }
        Ok(record)
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.path.join(FILE);
        crash::point();
        let replaced = self.replace(&path, record);
        crash::point();
        replaced.map_err(|source| Error::Write { path, source })
    }

    fn replace(&self, path: &Path, record: &Record) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let text = serde_json::to_vec(record)?;
        if let Err(error) = write(&temporary, &text) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            std::fs::create_dir_all(&self.path)?;
            write(&temporary, &text)?;
        }
        std::fs::rename(&temporary, path)
    }

    /// Removes the volumes, and nothing else: the pod's last status is still asked for.
    pub(crate) fn remove_volumes(&self) -> Result<(), Error> {
        let volumes = self.volumes();
        nodule_volume::unmount_below(&volumes).map_err(Error::Unmount)?;
        remove(&volumes)
    }

    /// Removes all that is kept of the pod.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        remove(&self.path)
    }
}

/// Writes a file for the agent's user alone: a pod's spec may hold what is secret.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Removes a folder and what guests have put into it; it is no error if there is none. Blocking.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    nodule_volume::remove(path).map_err(Error::Folder)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning};
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn pod(phase: &str, containers: Vec<ContainerStatus>) -> Arc<Pod> {
        let status = PodStatus {
            phase: Some(phase.to_owned()),
            container_statuses: Some(containers),
            ..PodStatus::default()
        };
        Arc::new(Pod { status: Some(status), ..Pod::default() })
    }

    #[test]
    fn a_record_survives_its_file_and_a_newer_form_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "u1");
        folder.save(&Record::new(pod("Pending", Vec::new()), now())).unwrap();
        let all = Folder::all(root.path()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1.as_ref().unwrap().phase, Phase::Syncing);

        let path = root.path().join("pods/u1").join(FILE);
        let text =
            std::fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":9");
        std::fs::write(&path, text).unwrap();
        assert!(matches!(folder.load(), Err(Error::Version { found: 9, .. })));
    }

    #[test]
    fn a_record_of_a_later_release_is_read_and_what_it_adds_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "u1");
        let text = json!({
            "version": VERSION, "pod": {"metadata": {"uid": "u1"}, "wings": 1}, "phase": "Terminating",
            "start_time": "2026-01-01T00:00:00Z", "stop": {"since": "2026-01-01T00:00:00Z",
            "grace": 3, "wings": 1}, "failure": {"reason": "r", "message": "m", "wings": 1},
            "user": 7, "wings": 1, "containers": {"a": {"wings": 1, "last": null,
            "backoff": {"seconds": 10, "since": "2026-01-01T00:00:00Z", "wings": 1}, "run": {"attempt": 2, "id": "ab", "image": "i",
            "image_id": "d", "started": null, "end": null, "wings": 1,
            "process": {"pid": 1, "start_ticks": 2, "wings": 1}}}},
        });
        std::fs::create_dir_all(root.path().join("pods/u1")).unwrap();
        let path = root.path().join("pods/u1").join(FILE);
        std::fs::write(&path, text.to_string()).unwrap();
        let record = folder.load().unwrap();
        let run = record.run("a").unwrap();
        assert_eq!((record.user, run.attempt, run.process.unwrap().pid), (Some(7), 2, 1));
        folder.save(&record).unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains("wings"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failure_is_kept_and_a_record_of_before_there_were_any_is_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), "u1");
        let mut record = Record::new(pod("Running", Vec::new()), now());
        folder.save(&record).unwrap();
        let path = root.path().join("pods/u1").join(FILE);
        assert!(!std::fs::read_to_string(path).unwrap().contains("failure"));
        assert_eq!(folder.load().unwrap().failure, None);
        let failure = Failure::evicted("too much".to_owned());
        record.failure = Some(failure.clone());
        folder.save(&record).unwrap();
        assert_eq!(folder.load().unwrap().failure, Some(failure));
    }

    #[test]
    fn a_pod_that_ended_stays_ended_without_a_record() {
        assert_eq!(Record::new(pod("Failed", Vec::new()), now()).phase, Phase::Terminated);
        assert_eq!(Record::new(pod("Running", Vec::new()), now()).phase, Phase::Syncing);
    }

    #[test]
    fn a_container_whose_record_is_lost_has_vanished_and_keeps_its_count() {
        let running = ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(now())) }),
            ..ContainerState::default()
        };
        let status = ContainerStatus {
            name: "a".to_owned(),
            restart_count: 4,
            state: Some(running),
            ..ContainerStatus::default()
        };
        let record = Record::new(pod("Running", vec![status]), now());
        let run = record.run("a").unwrap();
        assert_eq!(run.attempt, 4);
        let end = run.end.as_ref().unwrap();
        assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    }
}
