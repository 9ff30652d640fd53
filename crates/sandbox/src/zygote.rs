//! The zygote: forks a container's process for every order that the agent gives.
//!
//! It has one thread, no runtime and no guest, so that a fork of it is a whole process; what it holds is in [`Base`], and
//! nothing of it is secret. It is the parent of its forks: it writes how each of them ended where the next agent will look
//! (`fate.json`). When its agent is gone it takes no more orders, waits for its last child and ends.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use nodule_sandbox_proto::zygote::{Order, Reply, receive, send};
use nodule_sandbox_proto::{Fate, Process, State, VERSION};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::base::Base;
use crate::error::chain;
use crate::process::diagnose;
use crate::run;

/// Why the zygote, or one order, came to nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("start the engine")]
    Engine(#[source] wasmtime::Error),
    #[error("wait for signals")]
    Signals(#[source] Errno),
    #[error("speak with the agent")]
    Agent(#[source] io::Error),
    #[error("wait")]
    Poll(#[source] rustix::io::Errno),
    #[error("an order comes with a socket and a file for diagnostics")]
    Order,
    #[error("fork")]
    Fork(#[source] Errno),
    #[error("take over the container's descriptors")]
    Take(#[source] io::Error),
    #[error("look at the new process")]
    Look(#[source] io::Error),
}

/// Serves the agent on file descriptor 0; in a fork, runs the container.
pub(crate) fn serve() -> ExitCode {
    match Zygote::new().and_then(Zygote::work) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(Container { base, state })) => run::run(Ok(base), &state),
        Err(error) => {
            diagnose(format_args!("the zygote ends: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// What a fork is to run.
struct Container {
    base: Base,
    state: State,
}

struct Zygote {
    base: Base,
    /// The agent; none once it is gone.
    agent: Option<OwnedFd>,
    signals: SignalFd,
    /// The state folders of the processes that were not waited for yet.
    children: HashMap<Pid, PathBuf>,
}

impl Zygote {
    fn new() -> Result<Self, Error> {
        let base =
            Base::new().and_then(|base| base.warm().map(|()| base)).map_err(Error::Engine)?;
        let mask: SigSet = [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]
            .into_iter()
            .collect();
        mask.thread_block().map_err(Error::Signals)?;
        let chld: SigSet = [Signal::SIGCHLD].into_iter().collect();
        let signals = SignalFd::with_flags(&chld, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(Error::Signals)?;
        let agent = io::stdin().as_fd().try_clone_to_owned().map_err(Error::Agent)?;
        send(agent.as_fd(), &Reply::Ready { version: VERSION }, &[]).map_err(Error::Agent)?;
        Ok(Self { base, agent: Some(agent), signals, children: HashMap::new() })
    }

    /// Returns in the zygote, at its end, with nothing; and in each fork, at its beginning.
    fn work(mut self) -> Result<Option<Container>, Error> {
        while self.agent.is_some() || !self.children.is_empty() {
            let heard = self.wait()?;
            self.bury();
            match heard {
                Heard::Order => {
                    if let Some(forked) = self.take()? {
                        return self.become_container(&forked).map(Some);
                    }
                }
                Heard::Gone => self.part()?,
                Heard::Nothing => {}
            }
        }
        Ok(None)
    }

    /// Until there is an order, the agent is gone, or a child has ended. An order of an agent that is gone is none: the
    /// next agent may have given it again.
    fn wait(&self) -> Result<Heard, Error> {
        let fd = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut sources: Vec<_> = std::iter::once(fd(self.signals.as_fd()))
            .chain(self.agent.iter().map(|agent| fd(agent.as_fd())))
            .collect();
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Poll(error)),
        }
        let agent = sources.get(1).map_or(PollFlags::empty(), PollFd::revents);
        Ok(if agent.intersects(PollFlags::HUP | PollFlags::ERR) {
            Heard::Gone
        } else if agent.contains(PollFlags::IN) {
            Heard::Order
        } else {
            Heard::Nothing
        })
    }

    /// Writes down how those ended that did.
    fn bury(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let (pid, fate) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Fate::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Fate::Signal(signal as i32)),
                Err(Errno::EINTR) => continue,
                Ok(_) | Err(_) => return,
            };
            let Some(state) = self.children.remove(&pid) else { continue };
            if let Err(error) = State::new(state).write_fate(fate) {
                diagnose(chain(&error));
            }
        }
    }

    /// Takes an order. In the new process it returns what that is to run.
    fn take(&mut self) -> Result<Option<Forked>, Error> {
        let Some(agent) = &self.agent else { return Ok(None) };
        let (order, descriptors) = match receive::<Order>(agent) {
            Ok(Some(received)) => received,
            Ok(None) => {
                self.part()?;
                return Ok(None);
            }
            Err(error) => return Err(Error::Agent(error)),
        };
        let [listener, diagnostics] =
            <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| Error::Order)?;
        // SAFETY: this process has one thread, so that the new one is whole.
        #[expect(unsafe_code, reason = "a zygote forks")]
        match unsafe { fork() } {
            Ok(ForkResult::Child) => Ok(Some(Forked { order, listener, diagnostics })),
            Ok(ForkResult::Parent { child }) => {
                self.children.insert(child, order.state);
                self.answer(child)?;
                Ok(None)
            }
            Err(error) => {
                let message = chain(&Error::Fork(error));
                send(agent.as_fd(), &Reply::Refused { message }, &[]).map_err(Error::Agent)?;
                Ok(None)
            }
        }
    }

    /// Gives the agent its hold on the new process, which is not waited for before: its number is its own.
    fn answer(&mut self, child: Pid) -> Result<(), Error> {
        let Some(agent) = &self.agent else { return Ok(()) };
        let pid = child.as_raw();
        let named = u32::try_from(pid).ok().zip(rustix::process::Pid::from_raw(pid));
        let (number, pid) = named.ok_or_else(|| Error::Look(io::ErrorKind::InvalidData.into()))?;
        let pidfd =
            pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| Error::Look(error.into()))?;
        // One that has ended already is known by the pidfd alone.
        let process = Process::of(number).map_err(Error::Look)?;
        match send(agent.as_fd(), &Reply::Forked { process }, &[pidfd.as_fd()]) {
            // The agent is gone; the container is for the next one.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(Error::Agent),
        }
    }

    /// The agent is gone. Its socket is file descriptor 0, too.
    fn part(&mut self) -> Result<(), Error> {
        self.agent = None;
        let nothing = std::fs::File::open("/dev/null").map_err(Error::Agent)?;
        dup2_stdin(&nothing).map_err(|error| Error::Agent(error.into()))
    }

    /// In a fork: keeps what a container needs, where an exec would have it, and gives up all else of the zygote's.
    fn become_container(self, forked: &Forked) -> Result<Container, Error> {
        let Self { base, .. } = self;
        let Forked { order, listener, diagnostics } = forked;
        dup2_stdin(listener)
            .and_then(|()| dup2_stdout(diagnostics))
            .and_then(|()| dup2_stderr(diagnostics))
            .map_err(|error| Error::Take(error.into()))?;
        Ok(Container { base, state: State::new(&order.state) })
    }
}

/// What woke the zygote.
enum Heard {
    Order,
    Gone,
    Nothing,
}

/// What a new process has from its order.
struct Forked {
    order: Order,
    listener: OwnedFd,
    diagnostics: OwnedFd,
}
