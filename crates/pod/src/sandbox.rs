//! A handle to the process that runs one container: start it, stop it, kill it, learn its end.
//!
//! What the process says once a guest is near is its word alone; which process it is, and how the kernel says that it
//! ended, is known without it.
//!
//! The process is named by a pidfd, so nobody else is ever signalled. It outlives this handle and this agent: dropping
//! the handle ends nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nodule_sandbox_proto::frame::FrameError;
use nodule_sandbox_proto::zygote::Order;
use nodule_sandbox_proto::{
    Container, Exit, Fate, Process, Report, Request, SPOKEN, Started, State, StateError,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::conversation::{ANSWER, Conversation};
use crate::crash;
use crate::epitaph::keep;
use crate::zygote::{Fork, Zygote};

/// How long it may take until it answers at all, with a hundredth of a CPU and on a busy machine: the kubelet's
/// `runtimeRequestTimeout`.
const START: Duration = Duration::from_secs(120);
/// What the sandbox itself says, not the guest.
pub(crate) const DIAGNOSTICS: &str = "sandbox.log";
/// The zygote writes down how a process ended a moment after it has: how often that is looked for, and how far apart.
const LOOKS: u32 = 40;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A running sandbox. Clones name the same process.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    process: Process,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    socket: PathBuf,
    state: State,
}

/// Where a container's sandbox lives.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The state folder of the run.
    pub(crate) state: PathBuf,
    /// The socket's path; at most 107 bytes.
    pub(crate) socket: PathBuf,
}

/// Why a sandbox could not be started or spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("create {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("write the container's state")]
    State { source: StateError },
    #[error("make the container's cgroup")]
    Cgroup { source: nodule_cgroup::Error },
    /// In the kubelet's words.
    #[error("failed to prepare subPath for volumeMount {mount:?} of container {container:?}")]
    SubPath { mount: String, container: String, source: nodule_volume::BeneathError },
    /// The first word is the runtimes' (CRI, `ErrImageVolumeMountFailed`).
    #[error("ImageVolumeMountFailed: subPath {path}")]
    ImageSubPath { path: String, source: nodule_volume::BeneathError },
    #[error("listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("start {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("open a pidfd of process {pid}")]
    Pidfd { pid: u32, source: io::Error },
    #[error("connect to {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("speak with the sandbox on {}", path.display())]
    Frame { path: PathBuf, source: FrameError },
    #[error(
        "the sandbox on {} is of version {version}, this agent speaks with versions {} to {}: it runs on, but takes no \
         stop notice",
        path.display(), SPOKEN.start(), SPOKEN.end()
    )]
    Version { path: PathBuf, version: u32 },
    #[error(
        "the sandbox on {} is of version {version} and keeps the limits that it was started with: its container gets others \
         when it runs again",
        path.display()
    )]
    Old { path: PathBuf, version: u32 },
    #[error("nobody can say whether the zygote has forked")]
    Unclear { source: io::Error },
    #[error("the sandbox on {} did not answer within {} s", path.display(), ANSWER.as_secs())]
    Silent { path: PathBuf },
}

impl Error {
    /// The `reason` of a container that waits because of this, in the kubelet's words.
    pub(crate) fn reason(&self) -> &'static str {
        if matches!(self, Self::ImageSubPath { .. }) {
            "CreateContainerError"
        } else if matches!(self, Self::SubPath { .. }) {
            "CreateContainerConfigError"
        } else {
            "RunContainerError"
        }
    }
}

/// Starts the process: as a fork of the zygote if there is one, else by an exec of `program`. Blocks for as long as that
/// takes, so it belongs on a blocking thread.
pub(crate) fn start(
    program: &Path,
    zygote: &Zygote,
    place: &Place,
    container: &Container,
) -> Result<Sandbox, Error> {
    let state = State::new(&place.state);
    let written = state.create(container.user.as_ref());
    written
        .and_then(|()| state.write_container(container))
        .map_err(|source| Error::State { source })?;
    let diagnostics = place.state.join(DIAGNOSTICS);
    let log = own_log(&diagnostics)
        .map_err(|source| Error::Create { path: diagnostics.clone(), source })?;
    let listener = listen(&place.socket)?;
    let order = Order { state: place.state.clone() };
    crash::point();
    let started = match zygote.fork(&order, &[listener.as_fd(), log.as_fd()]) {
        Fork::Done(process, pidfd) => open(process, pidfd, place),
        Fork::Refused => spawn(program, place, listener, log),
        Fork::Unclear(source) => Err(Error::Unclear { source }),
    };
    crash::point();
    started
}

/// A new file that is written to at its end wherever that is, so that it can be made shorter; for the agent's user alone.
pub(crate) fn own_log(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().append(true).create_new(true).mode(0o600).open(path)
}

/// The way without a zygote.
fn spawn(
    program: &Path,
    place: &Place,
    listener: UnixListener,
    log: File,
) -> Result<Sandbox, Error> {
    let error = |source| Error::Spawn { program: program.to_owned(), source };
    let errors = log.try_clone().map_err(error)?;
    let child = Command::new(program)
        .arg("run")
        .arg("--state")
        .arg(&place.state)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(error)?;
    // The child is waited for by its pidfd: dropping `child` neither ends it nor waits for it.
    let process = Process::of(child.id()).map_err(error)?;
    open(process, pidfd(process)?, place)
}

fn listen(path: &Path) -> Result<UnixListener, Error> {
    let error = |source| Error::Listen { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
        _ => {}
    }
    UnixListener::bind(path).map_err(error)
}

pub(crate) fn pidfd(process: Process) -> Result<OwnedFd, Error> {
    let error = |source| Error::Pidfd { pid: process.pid, source };
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|errno| error(errno.into()))
}

pub(crate) fn open(process: Process, pidfd: OwnedFd, place: &Place) -> Result<Sandbox, Error> {
    let pidfd = watched(pidfd).map_err(|source| Error::Pidfd { pid: process.pid, source })?;
    Ok(Sandbox {
        process,
        pidfd: Arc::new(pidfd),
        socket: place.socket.clone(),
        state: State::new(&place.state),
    })
}

/// A pidfd in the reactor, which is readable when its process has ended.
pub(crate) fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "the reactor needs to be told that the descriptor stays open")]
    // SAFETY: the `AsyncFd` owns the descriptor, which nobody else has, and deregisters it before it is closed.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    watched.map_err(|refused| refused.into_parts().1)
}

impl Sandbox {
    /// The process, for the record.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// That the guest began; none if it ended before.
    pub(crate) async fn started(&self) -> Result<Option<Started>, Error> {
        let report = async { Conversation::within(START, &self.socket).await?.first().await };
        let report = tokio::select! {
            report = report => report,
            _ = self.pidfd.readable() => return Ok(None),
        };
        match report {
            Ok(Report::Started(started)) => Ok(Some(started)),
            Ok(Report::Ended(_) | Report::Hello { .. } | Report::Limited { .. }) => Ok(None),
            Err(_) if self.has_ended() => Ok(None),
            // It cannot say when its guest begins, but writes it down.
            Err(error @ Error::Version { .. }) => {
                while self.noted_start().is_none() && !self.has_ended() {
                    sleep(BETWEEN_LOOKS).await;
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The same from the disk, of one that this agent does not speak with.
    pub(crate) fn noted_start(&self) -> Option<Started> {
        self.state.started().ok().flatten()
    }

    fn has_ended(&self) -> bool {
        !matches!(self.process.is_alive(), Ok(true))
    }

    /// Waits for the end, and has it on disk before it is told. May be called again.
    pub(crate) async fn ended(&self) -> Exit {
        while self.pidfd.readable().await.is_err() {}
        let seen = self.reap();
        if let Ok(Some(exit)) = self.state.exit() {
            return exit;
        }
        let fate = match seen {
            Some(fate) => Some(fate),
            // Its zygote may have died before it: then it is this agent's child by now.
            None => told_fate(&self.state, || self.reap()).await,
        };
        keep(&self.state, fate)
    }

    /// How the process ended, if it is this agent's child and was not waited for yet.
    pub(crate) fn reap(&self) -> Option<Fate> {
        let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(id, options).ok().flatten()?;
        let signal = status.terminating_signal().map(Fate::Signal);
        signal.or(status.exit_status().map(Fate::Code))
    }

    /// Gives the stop notice. What the guest makes of it is its own affair.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        Conversation::open(&self.socket).await?.say(&Request::Stop).await
    }

    /// Sets another limit of the guest's memory, in bytes. What the guest has where that is more: then the old limit stays.
    pub(crate) async fn limit(&self, memory: Option<u64>) -> Result<Option<u64>, Error> {
        Conversation::open(&self.socket).await?.limit(memory).await
    }

    /// Ends the process at once.
    pub(crate) fn kill(&self) {
        // It may have ended already: that is what was asked for.
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

/// How a process ended, as its zygote tells it a moment after it has, or as `look` finds out.
pub(crate) async fn told_fate(state: &State, look: impl Fn() -> Option<Fate>) -> Option<Fate> {
    for _ in 0..LOOKS {
        if let Ok(Some(fate)) = state.fate() {
            return Some(fate);
        }
        if let Some(fate) = look() {
            return Some(fate);
        }
        sleep(BETWEEN_LOOKS).await;
    }
    None
}
