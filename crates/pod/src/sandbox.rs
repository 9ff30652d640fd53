//! A handle to the process that runs one container: start it, find it again, stop it, kill it, learn its end.
//!
//! The process is named by a pidfd, so nobody else is ever signalled. It outlives this handle and this agent: dropping
//! the handle ends nothing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodule_sandbox_proto::frame::{self, Decoder, FrameError};
use nodule_sandbox_proto::{
    Cause, Container, Exit, Report, Request, Started, State, StateError, VERSION, start_ticks,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::record::Process;

/// How long a sandbox may take to answer: its socket is served by a thread of its own.
const ANSWER: Duration = Duration::from_secs(10);
/// What the sandbox itself says, not the guest.
const DIAGNOSTICS: &str = "sandbox.log";

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

/// What was found of a run that an earlier agent began.
#[derive(Debug)]
pub(crate) enum Found {
    /// It runs.
    Alive(Sandbox),
    /// It has ended, and said how.
    Ended(Exit),
    /// Its guest began, and it is gone without a word.
    Vanished,
    /// No instruction of its guest was ever run.
    Never,
}

/// Why a sandbox could not be started or spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("create {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("write the container's state")]
    State { source: StateError },
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
    #[error("the sandbox on {} did not answer within {} s", path.display(), ANSWER.as_secs())]
    Silent { path: PathBuf },
}

/// Starts the process. Blocks for as long as an exec takes, so it belongs on a blocking thread.
pub(crate) fn start(
    program: &Path,
    place: &Place,
    container: &Container,
) -> Result<Sandbox, Error> {
    let create = |path: &Path, source| Error::Create { path: path.to_owned(), source };
    std::fs::create_dir_all(&place.state).map_err(|source| create(&place.state, source))?;
    let state = State::new(&place.state);
    state.write_container(container).map_err(|source| Error::State { source })?;
    let diagnostics = place.state.join(DIAGNOSTICS);
    let log = File::create(&diagnostics).map_err(|source| create(&diagnostics, source))?;
    let errors = log.try_clone().map_err(|source| create(&diagnostics, source))?;
    let listener = listen(&place.socket)?;
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
        .map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
    // The child is waited for by its pidfd: dropping `child` neither ends it nor waits for it.
    let start_ticks = start_ticks(child.id()).ok().flatten().unwrap_or_default();
    open(Process { pid: child.id(), start_ticks }, place)
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

fn open(process: Process, place: &Place) -> Result<Sandbox, Error> {
    let error = |source| Error::Pidfd { pid: process.pid, source };
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
        .map_err(|errno| error(errno.into()))?;
    #[expect(unsafe_code, reason = "the reactor needs to be told that the descriptor stays open")]
    // SAFETY: the `AsyncFd` owns the descriptor, which nobody else has, and deregisters it before it is closed.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    let pidfd = pidfd.map_err(|refused| error(refused.into_parts().1))?;
    Ok(Sandbox {
        process,
        pidfd: Arc::new(pidfd),
        socket: place.socket.clone(),
        state: State::new(&place.state),
    })
}

/// Looks for the sandbox of a run that an earlier agent began, whose process it may not have had time to note.
pub(crate) async fn find(place: &Place, noted: Option<Process>) -> Result<Found, Error> {
    let state = State::new(&place.state);
    let started = state.started().map_err(|source| Error::State { source })?;
    let named = started.as_ref().map(process_of).or(noted);
    if let Some(sandbox) = named.and_then(|process| reopen(process, place)) {
        return Ok(Found::Alive(sandbox));
    }
    if let Some(exit) = state.exit().map_err(|source| Error::State { source })? {
        return Ok(Found::Ended(exit));
    }
    if started.is_some() {
        return Ok(Found::Vanished);
    }
    if named.is_some() {
        return Ok(Found::Never);
    }
    // Its agent may have died between starting it and noting it: then it holds the socket.
    match Conversation::open(&place.socket).await {
        Ok(mut conversation) => match conversation.first().await? {
            Report::Started(started) => {
                Ok(reopen(process_of(&started), place).map_or(Found::Vanished, Found::Alive))
            }
            Report::Ended(exit) => Ok(Found::Ended(exit)),
            Report::Hello { .. } => Ok(Found::Never),
        },
        Err(Error::Connect { .. }) => Ok(Found::Never),
        Err(error) => Err(error),
    }
}

fn process_of(started: &Started) -> Process {
    Process { pid: started.pid, start_ticks: started.start_ticks }
}

/// A handle to `process` if it still is that one: the pidfd is opened first, then the tick compared.
fn reopen(process: Process, place: &Place) -> Option<Sandbox> {
    let sandbox = open(process, place).ok()?;
    let ticks = start_ticks(process.pid).ok().flatten()?;
    (ticks == process.start_ticks).then_some(sandbox)
}

impl Sandbox {
    /// The process, for the record.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// When the guest began, in milliseconds of the epoch; none if it ended before.
    pub(crate) async fn started(&self) -> Result<Option<i64>, Error> {
        let report = async { Conversation::open(&self.socket).await?.first().await };
        let report = tokio::select! {
            report = report => report,
            _ = self.pidfd.readable() => return Ok(None),
        };
        match report {
            Ok(Report::Started(started)) => Ok(Some(started.at)),
            Ok(Report::Ended(_) | Report::Hello { .. }) => Ok(None),
            Err(_) if self.has_ended() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(start_ticks(self.process.pid), Ok(Some(ticks)) if ticks == self.process.start_ticks)
    }

    /// Waits for the end, and has it on disk before it is told. May be called again.
    pub(crate) async fn ended(&self) -> Exit {
        while self.pidfd.readable().await.is_err() {}
        let fate = self.reap();
        if let Ok(Some(exit)) = self.state.exit() {
            return exit;
        }
        let started = self.state.started().ok().flatten().map(|started| started.at);
        let exit = self.epitaph(fate, started);
        if let Err(error) = self.state.write_exit(&exit) {
            tracing::warn!(error = &error as &dyn std::error::Error, "container's end not kept");
        }
        exit
    }

    /// The wait status, if the process is this agent's child and was not waited for yet.
    fn reap(&self) -> Option<rustix::process::WaitIdStatus> {
        use std::os::fd::AsFd;
        let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
        rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok().flatten()
    }

    /// How a sandbox ended that could not say so itself.
    fn epitaph(&self, fate: Option<rustix::process::WaitIdStatus>, started: Option<i64>) -> Exit {
        let now = Timestamp::now().as_millisecond();
        let signal = fate.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal);
        let status = fate.as_ref().and_then(rustix::process::WaitIdStatus::exit_status);
        match (signal, status) {
            (Some(signal), _) => {
                let mut exit =
                    Exit::new(Cause::Killed, &format!("killed by signal {signal}"), started, now);
                exit.code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
                exit
            }
            (None, Some(code)) => {
                let said = std::fs::read_to_string(self.state.folder().join(DIAGNOSTICS))
                    .unwrap_or_default();
                let message =
                    format!("the sandbox ended with {code} without a word: {}", said.trim());
                Exit::new(Cause::StartFailed, &message, started, now)
            }
            (None, None) => {
                Exit::new(Cause::Killed, "killed while no agent was there to see it", started, now)
            }
        }
    }

    /// Gives the stop notice. What the guest makes of it is its own affair.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        Conversation::open(&self.socket).await?.say(&Request::Stop).await
    }

    /// Ends the process at once.
    pub(crate) fn kill(&self) {
        // It may have ended already: that is what was asked for.
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

/// A connection to a sandbox, both sides of which have said who they are.
struct Conversation<'a> {
    path: &'a Path,
    stream: UnixStream,
    decoder: Decoder<Report>,
}

impl<'a> Conversation<'a> {
    async fn open(path: &'a Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        let mut conversation = Self { path, stream, decoder: Decoder::new() };
        conversation.say(&Request::Hello { version: VERSION }).await?;
        conversation.hear().await?;
        Ok(conversation)
    }

    async fn say(&mut self, request: &Request) -> Result<(), Error> {
        let frame = frame::encode(request).map_err(|source| self.error(source))?;
        let sent =
            timeout(ANSWER, self.stream.write_all(&frame)).await.map_err(|_| self.silent())?;
        sent.map_err(|source| self.error(FrameError::Read { source }))
    }

    async fn hear(&mut self) -> Result<Report, Error> {
        let heard = timeout(ANSWER, self.decoder.read_async(&mut self.stream))
            .await
            .map_err(|_| self.silent())?;
        heard.map_err(|source| self.error(source))?.ok_or_else(|| self.silent())
    }

    /// The first thing that the sandbox says of its guest, however long that takes it to start.
    async fn first(&mut self) -> Result<Report, Error> {
        let heard = self.decoder.read_async(&mut self.stream).await;
        heard.map_err(|source| self.error(source))?.ok_or_else(|| self.silent())
    }

    fn error(&self, source: FrameError) -> Error {
        Error::Frame { path: self.path.to_owned(), source }
    }

    fn silent(&self) -> Error {
        Error::Silent { path: self.path.to_owned() }
    }
}
