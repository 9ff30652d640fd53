//! Being written.
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

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

/// The pods of this node, for those who look at them from outside.
#[derive(Debug, Clone)]
pub struct Pods {}

impl Pods {
    /// Every pod that is bound to this node, with the status known here.
    pub fn list(&self) -> Vec<Pod> {
        Vec::new()
    }

    /// Where a container's log lies.
    pub fn log(&self, _namespace: &str, pod: &str, _container: &str, _instance: Instance) -> Result<Log, LogError> {
        Err(LogError::NoPod { pod: pod.to_owned() })
    }
}
