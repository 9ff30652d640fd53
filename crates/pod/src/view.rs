//! What others may see of a pod: its status, and where its containers' logs lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use nodule_sandbox_proto::Process;
use tokio::sync::watch;

use crate::condition;
use crate::record::{Phase, Record};

/// Which run of a container a log is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// The one that runs, or the last that ran.
    Current,
    /// The one before it.
    Previous,
}

/// Where a container's log lies, and whether its container has ended.
#[derive(Debug, Clone)]
pub struct Log {
    /// `…/<restart>.log`; rotated files lie beside it.
    pub path: PathBuf,
    /// True once the container has ended: nothing is written after.
    pub ended: watch::Receiver<bool>,
}

/// Why there is no log to read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such pod on this node.
    #[error("pod \"{pod}\" does not exist")]
    NoPod {
        /// The pod's name.
        pod: String,
    },
    /// The pod has no such container.
    #[error("container \"{container}\" not found in pod \"{pod}\"")]
    NoContainer {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
    /// The container has not run yet.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    Waiting {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
        /// The waiting state's reason, or the kubelet's words for an image problem.
        reason: String,
    },
    /// The container has no earlier run.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// The container's name.
        container: String,
        /// The pod's name.
        pod: String,
    },
}

/// A pod, as it was after its worker's last turn.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
    logs: BTreeMap<String, Runs>,
    /// Those that run, by container.
    pub(crate) processes: BTreeMap<String, Process>,
    phase: Phase,
}

#[derive(Debug, Clone)]
struct Runs {
    current: Option<Log>,
    previous: Option<Log>,
}

/// Tells readers of a log that its container has ended. By container, of the newest run.
#[derive(Debug, Default)]
pub(crate) struct LogEnds {
    open: BTreeMap<String, (u32, watch::Sender<bool>)>,
}

impl LogEnds {
    fn of(&mut self, container: &str, attempt: u32, ended: bool) -> watch::Receiver<bool> {
        let known = self.open.get(container).filter(|(known, _)| *known == attempt);
        if let Some((_, sender)) = known {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(ended);
        self.open.insert(container.to_owned(), (attempt, sender));
        receiver
    }

    /// The container's newest run has ended.
    pub(crate) fn close(&mut self, container: &str) {
        if let Some((_, sender)) = self.open.get(container) {
            sender.send_replace(true);
        }
    }
}

/// The folder of a pod's logs below the log root: the kubelet's layout, which log collectors parse.
pub(crate) fn log_folder(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid))
}

/// The log file of one run.
pub(crate) fn log_path(logs: &Path, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    logs.join(log_folder(pod)).join(container).join(format!("{attempt}.log"))
}

impl View {
    pub(crate) fn of(
        record: &Record,
        status: &Arc<PodStatus>,
        logs: &Path,
        ends: &mut LogEnds,
    ) -> Self {
        let pod = &record.pod;
        let runs = statuses(status).map(|container| {
            let name = &container.name;
            (
                name.clone(),
                Runs::of(record, container, ends, |attempt| log_path(logs, pod, name, attempt)),
            )
        });
        let logs = runs.collect();
        let running = record.containers.iter().filter_map(|(name, history)| {
            let run = history.run.as_ref().filter(|run| run.end.is_none())?;
            Some((name.clone(), run.process?))
        });
        Self {
            pod: Arc::clone(pod),
            status: Arc::clone(status),
            logs,
            processes: running.collect(),
            phase: record.phase,
        }
    }

    /// Whether something of the pod may still run.
    pub(crate) fn is_active(&self) -> bool {
        self.phase < Phase::Terminated
    }

    /// The containers that have run.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &str> {
        self.logs.keys().map(String::as_str)
    }

    /// The pod with all that is known of it here.
    pub(crate) fn pod(&self) -> Pod {
        let mut status = (*self.status).clone();
        let ours = status.conditions.take().unwrap_or_default();
        status.conditions = Some(condition::whole(&ours, &self.pod));
        status.qos_class = self.pod.status.as_ref().and_then(|known| known.qos_class.clone());
        Pod { status: Some(status), ..(*self.pod).clone() }
    }

    /// The log that is asked for.
    pub(crate) fn log(&self, container: &str, instance: Instance) -> Result<Log, LogError> {
        let pod = || self.pod.metadata.name.clone().unwrap_or_default();
        let (container, name) = (container.to_owned(), pod());
        let Some(runs) = self.logs.get(&container) else {
            return Err(LogError::NoContainer { container, pod: name });
        };
        match instance {
            Instance::Current => runs.current.clone().ok_or_else(|| LogError::Waiting {
                reason: self.waits_for(&container),
                container,
                pod: name,
            }),
            Instance::Previous => {
                runs.previous.clone().ok_or(LogError::NoPrevious { container, pod: name })
            }
        }
    }

    fn waits_for(&self, container: &str) -> String {
        let status = statuses(&self.status).find(|status| status.name == container);
        let waiting =
            status.and_then(|status| status.state.clone()).and_then(|state| state.waiting);
        match waiting.and_then(|waiting| waiting.reason).as_deref() {
            Some("ErrImagePull") => "image can't be pulled".to_owned(),
            Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
            Some(reason) => reason.to_owned(),
            None => "ContainerCreating".to_owned(),
        }
    }
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten()
}

impl Runs {
    /// The logs as the kubelet gives them: the previous run is the one in `lastState`, which is the newest itself while
    /// the container waits to run again.
    fn of(
        record: &Record,
        status: &ContainerStatus,
        ends: &mut LogEnds,
        path: impl Fn(u32) -> PathBuf,
    ) -> Self {
        let Some(history) = record.containers.get(&status.name) else {
            return Self { current: None, previous: None };
        };
        let run = history.run.as_ref().filter(|run| run.started.is_some() || run.end.is_some());
        let over = |attempt| Log { path: path(attempt), ended: watch::channel(true).1 };
        let newest = run.map(|run| Log {
            path: path(run.attempt),
            ended: ends.of(&status.name, run.attempt, run.end.is_some()),
        });
        let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
        let before = history.run.as_ref().and_then(|run| run.attempt.checked_sub(1));
        let earlier = before.filter(|_| history.last.is_some()).map(over);
        match newest {
            Some(log) if waits => Self { current: Some(log.clone()), previous: Some(log) },
            Some(log) => Self { current: Some(log), previous: earlier },
            None => Self { current: earlier.clone(), previous: earlier },
        }
    }
}
