//! The container's cgroup, and its places in the queues of the kernel's scheduler and its out-of-memory killer.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::JailError;

/// Moves this process into the cgroup (v2) at `path`: "0" is whoever writes (kernel docs, cgroup-v2: "cgroup.procs").
pub(super) fn enter(path: &Path) -> Result<(), JailError> {
    fs::write(path.join("cgroup.procs"), "0")
        .map_err(|source| JailError::Cgroup { path: path.to_owned(), source })
}

/// Sets what is added to the process's score (proc_pid_oom_score_adj(5)). To lower it takes CAP_SYS_RESOURCE, which a root
/// in a container seldom has: without, it stays as the agent's, for a pod that may be killed is better than none.
pub(super) fn score(score: i32) -> Result<(), JailError> {
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if score < 0 && error.kind() == ErrorKind::PermissionDenied => Ok(()),
        written => written.map_err(|source| JailError::Score { score, source }),
    }
}

/// Sets the niceness.
pub(super) fn yield_to(nice: i32) -> Result<(), JailError> {
    rustix::process::setpriority_process(None, nice)
        .map_err(|error| JailError::Nice { nice, source: error.into() })
}
