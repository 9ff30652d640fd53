//! What the worker gives up before it looks at its input: whoever takes it over finds two open files and a pipe.
//!
//! [`parent`] ends it with its parent, [`limits`] says how much it may use, [`user`] makes it nobody, [`landlock`] takes
//! away what could be opened, and [`seccomp`] all that is not computing. Landlock is missing where the kernel has none,
//! the user where the agent is not root; whatever else fails ends the worker.

mod landlock;
mod limits;
mod parent;
mod seccomp;
#[cfg(test)]
mod tests;
mod user;

use std::io;

use thiserror::Error;

pub(crate) use parent::bind;

use crate::Limits;

/// Why a worker is not confined. Each says what to do, where there is something to do.
#[derive(Debug, Error)]
pub(crate) enum JailError {
    /// It would outlive its parent.
    #[error("watch the parent process: {0}")]
    Parent(io::Error),
    /// It keeps files of its parent.
    #[error("close what is open: {0}")]
    Close(io::Error),
    /// A limit.
    #[error("limit {what}: {source}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It cannot become another user.
    #[error(
        "become user and group {id}: {source}; the agent, being root, needs the capabilities SETUID and SETGID, and \
         `compile.user` must be a user of this user namespace"
    )]
    User {
        /// Which.
        id: u32,
        /// Why not.
        source: io::Error,
    },
    /// It keeps rights that it should not.
    #[error("give up {what}: {source}")]
    GiveUp {
        /// Which.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Landlock is there, but refuses.
    #[error("restrict files by landlock: {0}")]
    Landlock(#[source] ::landlock::RulesetError),
    /// The threads that compile.
    #[error("start threads: {0}; raise the limit of memory")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The filter of system calls.
    #[error("filter system calls: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Seccomp(#[source] seccompiler::Error),
}

/// Confines this process for good, and returns the names of the layers that are missing. There must be one thread; those
/// that compile are started here, since none can be afterwards.
pub(crate) fn enter(limits: &Limits) -> Result<Vec<String>, JailError> {
    let mut missing = Vec::new();
    let mut lacks = |layer: &str| missing.push(layer.to_owned());
    parent::close_rest().map_err(JailError::Close)?;
    limits::set(limits)?;
    if !user::become_user(limits.user)? {
        lacks("user");
    }
    user::give_up()?;
    // Another user is not bound any more.
    bind(limits.parent).map_err(JailError::Parent)?;
    if !landlock::restrict().map_err(JailError::Landlock)? {
        lacks("landlock");
    }
    limits::open_nothing()?;
    start_threads(limits.max_memory_mib)?;
    seccomp::seal().map_err(JailError::Seccomp)?;
    Ok(missing)
}

/// More threads compile no faster: a program's largest function bounds that.
const MOST_THREADS: usize = 8;
/// Memory for each thread, in MiB: its stack, and what it compiles.
const THREAD_MIB: usize = 128;

/// Starts the pool that Wasmtime compiles in.
fn start_threads(memory_mib: u32) -> Result<(), JailError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let room = usize::try_from(memory_mib).unwrap_or(usize::MAX) / THREAD_MIB;
    let threads = cores.min(room).clamp(1, MOST_THREADS);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(JailError::Threads)
}
