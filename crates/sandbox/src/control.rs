//! The control thread: answers the agent, whatever the guest does.
//!
//! It never blocks but in `poll`: its sockets do not, and an agent that does not read what it is told is hung up on.
//! It may come back; it is told the newest state then.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use nodule_sandbox_proto::frame::{Decoder, FrameError, encode};
use nodule_sandbox_proto::{Exit, Report, Request, VERSION};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::chain;
use crate::given::Levers;
use crate::process::diagnose;

/// The stack of the control thread in bytes. It parses small messages; the default would be 2 MiB in every container.
const STACK: usize = 128 << 10;

/// How long until a connection that could not be accepted is tried again: short for an agent, long for a CPU.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The main thread's end of the control thread.
pub(crate) struct Control {
    reports: Sender<Report>,
    wake: OwnedFd,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts to serve `listener` for the container `id`. The agent has no hold of a guest that could not be made.
    pub(crate) fn start(
        listener: UnixListener,
        id: String,
        levers: Option<Levers>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (reports, inbox) = mpsc::channel();
        let server = Server {
            listener,
            wake: wake.try_clone()?,
            inbox,
            id,
            levers,
            newest: None,
            peers: Vec::new(),
            crowded: false,
        };
        let thread = thread::Builder::new()
            .name("control".into())
            .stack_size(STACK)
            .spawn(move || server.run())?;
        Ok(Self { reports, wake, thread })
    }

    /// Tells every agent that is there and every one that comes later.
    pub(crate) fn say(&self, report: Report) {
        // An error means that the thread is gone, which it has said itself.
        if self.reports.send(report).is_ok() {
            _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Tells the end, and returns when all who are connected, or were about to be, have it in their socket.
    pub(crate) fn end(self, exit: Exit) {
        self.say(Report::Ended(exit));
        if self.thread.join().is_err() {
            diagnose("the control thread panicked");
        }
    }
}

/// The version that this sandbox says it is of. Tests of an agent's adoption have a debug build say another.
fn version() -> u32 {
    let other = cfg!(debug_assertions).then(|| std::env::var("NODULE_PROTOCOL_VERSION").ok());
    other.flatten().and_then(|version| version.parse().ok()).unwrap_or(VERSION)
}

/// What the control thread owns.
struct Server {
    listener: UnixListener,
    wake: OwnedFd,
    inbox: Receiver<Report>,
    id: String,
    levers: Option<Levers>,
    /// What a new peer is told after hello.
    newest: Option<Report>,
    peers: Vec<Peer>,
    /// Whether the last connection could not be accepted: the guest may have taken every file descriptor.
    crowded: bool,
}

impl Server {
    fn run(mut self) {
        while !matches!(self.newest, Some(Report::Ended(_))) {
            if let Err(error) = self.wait() {
                diagnose(format_args!("the control socket is not served any more: {error}"));
                return;
            }
            self.announce();
            self.accept();
            self.hear();
        }
    }

    /// Until there is anything to do. What, the callers find out by trying: there are a handful of sockets. A connection
    /// that cannot be accepted stays ready, and is not polled for but tried again.
    fn wait(&self) -> io::Result<()> {
        let listener = (!self.crowded).then(|| self.listener.as_fd());
        let peers = self.peers.iter().map(|peer| peer.stream.as_fd());
        let mut sources: Vec<_> = std::iter::once(self.wake.as_fd())
            .chain(listener)
            .chain(peers)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut sources, self.crowded.then_some(&RETRY)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // It counts, and does not block: an error means that it is at zero already.
        _ = rustix::io::read(&self.wake, &mut [0; size_of::<u64>()]);
        Ok(())
    }

    fn announce(&mut self) {
        while let Ok(report) = self.inbox.try_recv() {
            self.peers.retain_mut(|peer| !peer.greeted || keep(peer.say(&report)));
            self.newest = Some(report);
        }
    }

    fn accept(&mut self) {
        let error = loop {
            match self.listener.accept().and_then(Peer::new) {
                Ok(peer) => self.peers.push(peer),
                Err(error) => break error,
            }
        };
        let crowded = error.kind() != io::ErrorKind::WouldBlock;
        if crowded && !self.crowded {
            diagnose(format_args!("a connection to the control socket waits: {error}"));
        }
        self.crowded = crowded;
    }

    fn hear(&mut self) {
        let Self { peers, id, newest, levers, .. } = self;
        peers.retain_mut(|peer| keep(peer.hear(id, newest.as_ref(), levers.as_ref())));
    }
}

/// Whether a connection is kept: an error ends that one, and is told.
fn keep(result: Result<Next, FrameError>) -> bool {
    match result {
        Ok(next) => next == Next::Keep,
        Err(error) => {
            diagnose(format_args!("a connection to the control socket ends: {}", chain(&error)));
            false
        }
    }
}

/// What becomes of a connection.
#[derive(PartialEq, Eq)]
enum Next {
    Keep,
    HangUp,
}

/// One connection: an agent.
struct Peer {
    stream: UnixStream,
    decoder: Decoder<Request>,
    /// Whether it has said hello. Until then it is told nothing.
    greeted: bool,
}

impl Peer {
    fn new((stream, _): (UnixStream, SocketAddr)) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, decoder: Decoder::new(), greeted: false })
    }

    /// Takes all that has arrived.
    fn hear(
        &mut self,
        id: &str,
        newest: Option<&Report>,
        levers: Option<&Levers>,
    ) -> Result<Next, FrameError> {
        loop {
            match self.decoder.read(&mut self.stream) {
                Ok(Some(Request::Hello { .. })) => self.greet(id, newest)?,
                Ok(Some(Request::Stop)) => levers.into_iter().for_each(Levers::stop),
                Ok(Some(Request::Limit { memory })) => {
                    let nothing = Report::Limited { used: 0, memory };
                    let answer = levers.map_or(nothing, |levers| levers.limit(memory));
                    if self.say(&answer)? == Next::HangUp {
                        return Ok(Next::HangUp);
                    }
                }
                Ok(None) => return Ok(Next::HangUp),
                Err(FrameError::Read { source }) if source.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Next::Keep);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Every version of the agent gets an answer: it is for the younger of the two to know the other's messages.
    fn greet(&mut self, id: &str, newest: Option<&Report>) -> Result<(), FrameError> {
        self.greeted = true;
        self.say(&Report::Hello { version: version(), id: id.to_owned() })?;
        newest.map_or(Ok(Next::Keep), |report| self.say(report)).map(|_| ())
    }

    /// A message is much smaller than a socket's buffer: where it does not fit, the peer has stopped reading.
    fn say(&mut self, report: &Report) -> Result<Next, FrameError> {
        let bytes = encode(report)?;
        Ok(if self.stream.write_all(&bytes).is_ok() { Next::Keep } else { Next::HangUp })
    }
}
