//! A handle to the process that runs one container: start it, find it again, stop it, kill it, learn its end.
//!
//! What the process says once a guest is near is its word alone; which process it is, and how the kernel says that it
//! ended, is known without it.
//!
//! The process is named by a pidfd, so nobody else is ever signalled. It outlives this handle and this agent: dropping
//! the handle ends nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodule_sandbox_proto::frame::{self, Decoder, FrameError};
use nodule_sandbox_proto::zygote::Order;
use nodule_sandbox_proto::{
    Cause, Container, Exit, Fate, Process, Report, Request, Started, State, StateError, VERSION,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::zygote::{Fork, Zygote};

/// How long a sandbox may take to answer: its socket is served by a thread of its own.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take until it answers at all, with a hundredth of a CPU and on a busy machine: the kubelet's
/// `runtimeRequestTimeout`.
const START: Duration = Duration::from_secs(120);
/// What the sandbox itself says, not the guest.
const DIAGNOSTICS: &str = "sandbox.log";
/// How much of it is told, in bytes: its end.
const LAST_WORDS: u64 = 1 << 10;
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
    #[error("make the container's cgroup")]
    Cgroup { source: nodule_cgroup::Error },
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
    #[error("nobody can say whether the zygote has forked")]
    Unclear { source: io::Error },
    #[error("the sandbox on {} did not answer within {} s", path.display(), ANSWER.as_secs())]
    Silent { path: PathBuf },
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
    let log = File::create(&diagnostics)
        .map_err(|source| Error::Create { path: diagnostics.clone(), source })?;
    let listener = listen(&place.socket)?;
    let order = Order { state: place.state.clone() };
    match zygote.fork(&order, &[listener.as_fd(), log.as_fd()]) {
        Fork::Done(process, pidfd) => open(process, pidfd, place),
        Fork::Refused => spawn(program, place, listener, log),
        Fork::Unclear(source) => Err(Error::Unclear { source }),
    }
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

fn pidfd(process: Process) -> Result<OwnedFd, Error> {
    let error = |source| Error::Pidfd { pid: process.pid, source };
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|errno| error(errno.into()))
}

fn open(process: Process, pidfd: OwnedFd, place: &Place) -> Result<Sandbox, Error> {
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

/// Looks for the sandbox of a run that an earlier agent began, whose process it may not have had time to note.
pub(crate) async fn find(place: &Place, noted: Option<Process>) -> Result<Found, Error> {
    let state = State::new(&place.state);
    let wrap = |source| Error::State { source };
    let named = state.process().map_err(wrap)?.or(noted);
    if let Some(process) = named
        && let Some(sandbox) = reopen(process, place)?
    {
        return Ok(Found::Alive(sandbox));
    }
    // What a guest may have left there is not worth more than an exit that is missing.
    if let Ok(Some(exit)) = state.exit() {
        return Ok(Found::Ended(exit));
    }
    if let Some(fate) = state.fate().map_err(wrap)? {
        return Ok(Found::Ended(keep(&state, Some(fate))));
    }
    if matches!(state.started(), Ok(Some(_)) | Err(_)) {
        return Ok(Found::Vanished);
    }
    if named.is_some() {
        return Ok(Found::Never);
    }
    // Its agent may have died between starting it and noting it, and it before it could say who it is: then it holds
    // the socket, and will say so.
    match Conversation::open(&place.socket).await {
        Ok(mut conversation) => {
            conversation.first().await?;
            let process = state.process().map_err(wrap)?;
            let sandbox = process.map(|process| reopen(process, place)).transpose()?;
            Ok(sandbox.flatten().map_or(Found::Never, Found::Alive))
        }
        Err(Error::Connect { .. }) => Ok(Found::Never),
        Err(error) => Err(error),
    }
}

/// A handle to `process` if it still is that one: the pidfd is opened first, then the tick compared. What cannot be looked
/// at, for want of descriptors say, is an error and no end.
fn reopen(process: Process, place: &Place) -> Result<Option<Sandbox>, Error> {
    let held = match pidfd(process) {
        Ok(held) => held,
        Err(Error::Pidfd { source, .. }) if is_gone(&source) => return Ok(None),
        Err(error) => return Err(error),
    };
    let sandbox = open(process, held, place)?;
    let alive = process.is_alive();
    let alive = alive.map_err(|source| Error::Pidfd { pid: process.pid, source })?;
    Ok(alive.then_some(sandbox))
}

/// No process of that number; or it is a thread's by now (pidfd_open(2)).
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::SRCH, Errno::INVAL, Errno::NOENT];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

/// The end of a sandbox that did not say it itself, from now on on the disk.
fn keep(state: &State, fate: Option<Fate>) -> Exit {
    let started = state.started().ok().flatten().map(|started| started.at);
    let exit = epitaph(fate, started, &last_words(state));
    if let Err(error) = state.write_exit(&exit) {
        tracing::warn!(error = &error as &dyn std::error::Error, "container's end not kept");
    }
    exit
}

/// How a sandbox ended that could not say so itself: pure.
fn epitaph(fate: Option<Fate>, started: Option<i64>, said: &str) -> Exit {
    let now = Timestamp::now().as_millisecond();
    match (fate, started) {
        (Some(Fate::Signal(signal)), _) => {
            let mut exit =
                Exit::new(Cause::Killed, &format!("killed by signal {signal}"), started, now);
            exit.code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
            exit
        }
        // Its own exit code is the guest's: only the file is missing.
        (Some(Fate::Code(code)), Some(started)) => {
            Exit::exited(u8::try_from(code).unwrap_or(u8::MAX), started, now)
        }
        (Some(Fate::Code(code)), None) => {
            let message = format!("the sandbox ended with {code} without a word: {said}");
            Exit::new(Cause::StartFailed, &message, None, now)
        }
        (None, _) => {
            let message = "ended, and nobody was there to learn how";
            Exit::new(Cause::Killed, message, started, now)
        }
    }
}

/// The end of what the sandbox said for those who look after the node.
fn last_words(state: &State) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(state.folder().join(DIAGNOSTICS))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut words = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut words)?;
        Ok(words)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
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
            Ok(Report::Ended(_) | Report::Hello { .. }) => Ok(None),
            Err(_) if self.has_ended() => Ok(None),
            Err(error) => Err(error),
        }
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
            None => self.fate().await,
        };
        keep(&self.state, fate)
    }

    /// How the process ended, as the zygote tells it.
    async fn fate(&self) -> Option<Fate> {
        for _ in 0..LOOKS {
            if let Ok(Some(fate)) = self.state.fate() {
                return Some(fate);
            }
            // Its zygote may have died before it: then it is this agent's child by now.
            if let Some(fate) = self.reap() {
                return Some(fate);
            }
            sleep(BETWEEN_LOOKS).await;
        }
        None
    }

    /// How the process ended, if it is this agent's child and was not waited for yet.
    fn reap(&self) -> Option<Fate> {
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
        Self::within(ANSWER, path).await
    }

    /// With `patience` for the sandbox's first word.
    async fn within(patience: Duration, path: &'a Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        let mut conversation = Self { path, stream, decoder: Decoder::new() };
        conversation.say(&Request::Hello { version: VERSION }).await?;
        conversation.hear(patience).await?;
        Ok(conversation)
    }

    async fn say(&mut self, request: &Request) -> Result<(), Error> {
        let frame = frame::encode(request).map_err(|source| self.error(source))?;
        let sent =
            timeout(ANSWER, self.stream.write_all(&frame)).await.map_err(|_| self.silent())?;
        sent.map_err(|source| self.error(FrameError::Read { source }))
    }

    async fn hear(&mut self, patience: Duration) -> Result<Report, Error> {
        let heard = timeout(patience, self.decoder.read_async(&mut self.stream))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_wrote_is_told_by_what_the_kernel_said() {
        let told = |fate, started| {
            let exit = epitaph(fate, started, "no engine");
            (exit.cause, exit.code, exit.message)
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told(Some(Fate::Signal(9)), Some(1)),
            (Cause::Killed, 137, text("killed by signal 9"))
        );
        assert_eq!(told(Some(Fate::Code(3)), Some(1)), (Cause::Exited, 3, text("")));
        assert_eq!(
            told(Some(Fate::Code(1)), None),
            (Cause::StartFailed, 128, text("the sandbox ended with 1 without a word: no engine"))
        );
        assert_eq!(
            told(None, Some(1)),
            (Cause::Killed, 137, text("ended, and nobody was there to learn how"))
        );
    }
}
