//! What the process gives up before there is a guest: an escape from Wasm must lead nowhere.
//!
//! Four steps, in an order that each needs the one before it:
//!
//! 1. [`Jail::enter`]: into the container's cgroup, before anything of the guest's is read.
//! 2. [`Jail::stage`]: mounts of its own, and in them the guest's, the sandbox's own folders and nothing else.
//! 3. [`Jail::confine`], when all is open and the program's code is mapped: the root is left ([`stage`]), then the user
//!    ([`user`]), the limits of the process are set ([`limits`]) and what may be opened is said to the kernel
//!    ([`landlock`]). All of this is for one thread, so that there must be no other yet.
//! 4. [`Jail::seal`], when the threads are there: the system calls that are left ([`seccomp`]).
//!
//! A layer that this machine or this user does not allow is missing and named; one that should be there and fails ends
//! the process. SECURITY.md says what each is against.

mod apart;
mod cgroup;
mod laid;
mod landlock;
mod limits;
mod private;
mod seccomp;
mod source;
mod stage;
mod user;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nodule_sandbox_proto::{Container, Mount, User};
use thiserror::Error;

pub use seccomp::Sockets;
pub use stage::{Stage, StageError};

/// A process that gives up more and more.
#[derive(Debug, Default)]
pub struct Jail {
    /// The layers that are not there, by name.
    missing: Vec<String>,
}

/// What a confined process may still reach by opening it.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The guest's mounts, where the process finds them.
    pub mounts: &'a [Mount],
    /// Folders of the sandbox itself.
    pub folders: &'a [&'a OwnedFd],
}

/// Why a process could not be confined.
#[derive(Debug, Error)]
pub enum JailError {
    /// Its cgroup cannot be entered.
    #[error("enter the cgroup {}", path.display())]
    Cgroup {
        /// The cgroup's folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel was not told how ready to be to kill it.
    #[error("set the out-of-memory score to {score}")]
    Score {
        /// The adjustment.
        score: i32,
        /// Why not.
        source: io::Error,
    },
    /// The scheduler was not told whom to yield to.
    #[error("set the niceness to {nice}")]
    Nice {
        /// The niceness.
        nice: i32,
        /// Why not.
        source: io::Error,
    },
    /// Its mounts.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// It cannot leave the host's root.
    #[error("leave the host's file system")]
    Void(#[source] io::Error),
    /// It cannot become the pod's user.
    #[error("become user {uid} of group {gid}")]
    User {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// Why not.
        source: io::Error,
    },
    /// It keeps rights that it should not.
    #[error("give up {what}")]
    GiveUp {
        /// Which.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Landlock is there, but its rules were refused.
    #[error("restrict files by landlock")]
    Landlock(#[source] ::landlock::RulesetError),
    /// A folder that should stay reachable.
    #[error("hold {}", path.display())]
    Hold {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The filter of system calls is refused.
    #[error("filter system calls")]
    Seccomp(#[source] seccompiler::Error),
}

impl Jail {
    /// Into the cgroup. Called first of all.
    pub fn enter(container: &Container) -> Result<Self, JailError> {
        if let Some(path) = &container.cgroup {
            cgroup::enter(path)?;
        }
        if let Some(score) = container.oom_score_adj {
            cgroup::score(score)?;
        }
        if let Some(nice) = container.nice {
            cgroup::yield_to(nice)?;
        }
        Ok(Self::default())
    }

    /// Gives the process mounts of its own that hold the guest's and the sandbox's `own` folders. `state` is the state
    /// folder.
    pub fn stage(
        &mut self,
        mounts: &[Mount],
        own: &[&Path],
        state: &Path,
    ) -> Result<Stage, JailError> {
        let stage = Stage::build(mounts, own, state)?;
        if !stage.is_apart() {
            self.lacks("mount namespace");
        }
        if stage.is_rigid {
            self.lacks("writable root");
        }
        Ok(stage)
    }

    /// Leaves all but what is `held`. Called when there is one thread, and everything is open.
    pub fn confine(
        &mut self,
        stage: &Stage,
        held: &Held<'_>,
        user: Option<&User>,
        sockets: Sockets,
    ) -> Result<(), JailError> {
        let holds = landlock::hold(held)?;
        stage.leave()?;
        match user {
            Some(user) => user::become_user(user)?,
            None => self.lacks("user"),
        }
        user::give_up()?;
        limits::set()?;
        if !landlock::restrict(&holds, sockets)? {
            self.lacks("landlock");
        }
        Ok(())
    }

    /// Leaves the system calls that a guest needs, in all threads. Says which layers are missing.
    pub fn seal(&mut self, sockets: Sockets) -> Result<Vec<String>, JailError> {
        if !seccomp::seal(sockets)? {
            self.lacks("seccomp");
        }
        Ok(std::mem::take(&mut self.missing))
    }

    fn lacks(&mut self, layer: &str) {
        self.missing.push(layer.to_owned());
    }
}
