//! The agent's zygote: the process that forks sandboxes, kept running.
//!
//! An order is a packet each way, on a blocking thread and one at a time. Where there is no zygote, a sandbox is started
//! by an exec of the same program; where nobody can say whether the zygote has forked, it is not: two processes of one
//! container would be worse than one that comes later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use nodule_sandbox_proto::zygote::{Order, Reply, receive, send};
use nodule_sandbox_proto::{Process, VERSION};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::orphans::Orphans;
use crate::sandbox::{own_log, watched};

/// How long the zygote may take to answer: it does nothing but fork.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a sandbox's start waits for one that is just being started. A try ends sooner: the zygote has [`ANSWER`] to say
/// that it is ready.
const RISING: Duration = Duration::from_secs(15);
/// The waits between two tries to have a zygote: each twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What it says for those who look after the node; of the one before, [`OLD_LOG`].
const LOG: &str = "zygote.log";
const OLD_LOG: &str = "zygote.log.1";

/// How sandboxes are started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// As forks of a zygote: the fastest and smallest.
    #[default]
    Fork,
    /// By an exec each: every container has an address layout of its own.
    Exec,
}

/// Where orders go.
#[derive(Debug)]
pub(crate) struct Zygote {
    program: PathBuf,
    /// Where the pods that it serves have their folders.
    pods: PathBuf,
    /// The folder of its log.
    folder: PathBuf,
    /// Written by the watch, and taken down by who finds it broken.
    link: Mutex<Link>,
    /// The link is not [`Link::Rising`] any more.
    settled: Condvar,
    /// The link was found broken.
    lost: Notify,
}

/// Whether there is somebody to order from.
#[derive(Debug)]
enum Link {
    /// Soon, or soon not.
    Rising,
    /// Yes.
    Up(OwnedFd),
    /// No.
    Down,
}

/// What became of an order.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The process runs.
    Done(Process, OwnedFd),
    /// Nothing was started, and nothing will be.
    Refused,
    /// It may have been started.
    Unclear(io::Error),
}

impl Zygote {
    /// No zygote yet; [`watch`](Self::watch) starts it. Where sandboxes are to be forks, the first of them wait for that.
    pub(crate) fn new(start: Start, program: &Path, pods: PathBuf, folder: &Path) -> Self {
        let link = match start {
            Start::Fork => Link::Rising,
            Start::Exec => Link::Down,
        };
        Self {
            program: program.to_owned(),
            pods,
            folder: folder.to_owned(),
            link: Mutex::new(link),
            settled: Condvar::new(),
            lost: Notify::new(),
        }
    }

    /// Has a container's process forked. Blocks.
    pub(crate) fn fork(&self, order: &Order, descriptors: &[BorrowedFd<'_>; 2]) -> Fork {
        let rising = |link: &mut Link| matches!(link, Link::Rising);
        let settled = self.settled.wait_timeout_while(self.link(), RISING, rising);
        let (mut link, _) = settled.unwrap_or_else(PoisonError::into_inner);
        let Link::Up(socket) = &*link else { return Fork::Refused };
        if let Err(error) = send(socket.as_fd(), order, descriptors) {
            debug!(%error, "the zygote takes no orders");
            self.cut(&mut link);
            return Fork::Refused;
        }
        let error = match receive::<Reply>(socket) {
            Ok(Some((Reply::Forked { process }, mut descriptors))) if descriptors.len() == 1 => {
                match descriptors.pop() {
                    Some(pidfd) => return Fork::Done(process, pidfd),
                    None => io::ErrorKind::InvalidData.into(),
                }
            }
            Ok(Some((Reply::Refused { message }, _))) => {
                warn!(message, "the zygote does not fork: the program is started anew");
                return Fork::Refused;
            }
            Ok(Some(_)) => io::ErrorKind::InvalidData.into(),
            Ok(None) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        };
        self.cut(&mut link);
        Fork::Unclear(error)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what there is now, to those who wait for it, too.
    fn set(&self, link: Link) {
        *self.link() = link;
        self.settled.notify_all();
    }

    /// Lets go of the link. The zygote takes no order that it has not read.
    fn cut(&self, link: &mut Link) {
        *link = Link::Down;
        self.lost.notify_one();
    }

    /// Keeps a zygote running, for ever. Those that are gone had children that live on.
    pub(crate) async fn watch(self: Arc<Self>) {
        let orphans = Orphans::default();
        tokio::join!(self.keep(&orphans), orphans.bury());
    }

    async fn keep(self: &Arc<Self>, orphans: &Orphans) {
        // What a zygote leaves behind is waited for here, so that its end is known.
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            debug!(%error, "sandboxes of a zygote that has died are init's");
        }
        let mut wait = FIRST_WAIT;
        let mut told = false;
        loop {
            let since = Instant::now();
            let zygote = Arc::clone(self);
            self.set(Link::Rising);
            match tokio::task::spawn_blocking(move || zygote.raise()).await {
                Ok(Ok(raised)) => {
                    info!(pid = raised.child.id(), "zygote is ready");
                    told = false;
                    self.attend(raised).await;
                    orphans.may_come();
                }
                Ok(Err(error)) if !told => {
                    warn!(%error, "no zygote: sandboxes are started by an exec each");
                    told = true;
                }
                Ok(Err(error)) => debug!(%error, "still no zygote"),
                Err(error) => warn!(%error, "the start of a zygote was broken off"),
            }
            // Whatever came of it, nobody is to wait for it any more.
            self.set(Link::Down);
            wait = if since.elapsed() > LONGEST_WAIT { FIRST_WAIT } else { wait };
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Until the zygote is gone, and it is waited for.
    async fn attend(&self, mut raised: Raised) {
        tokio::select! {
            _ = raised.pidfd.readable() => {}
            () = self.lost.notified() => {}
        }
        self.set(Link::Down);
        // A start that found it broken meanwhile has said so, too: not of the next one.
        let _ = self.lost.notified().now_or_never();
        // It may have ended already. One that was only cut off is ended: what it has not answered may be forked at any time.
        match raised.child.try_wait() {
            Ok(Some(status)) => {
                warn!(%status, log = LOG, "the zygote has ended: a new one is started");
            }
            Ok(None) | Err(_) => {
                warn!(log = LOG, "the zygote does not answer: a new one is started");
                let _ = raised.child.kill();
                let _ = tokio::task::spawn_blocking(move || raised.child.wait()).await;
            }
        }
    }

    /// Starts a zygote and waits until it is ready. Blocks.
    fn raise(&self) -> io::Result<Raised> {
        std::fs::create_dir_all(&self.folder)?;
        let log = self.folder.join(LOG);
        match std::fs::rename(&log, self.folder.join(OLD_LOG)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = own_log(&log)?;
        let (ours, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&ours, Timeout::Recv, Some(ANSWER))?;
        set_socket_timeout(&ours, Timeout::Send, Some(ANSWER))?;
        let mut child = Command::new(&self.program)
            .arg("zygote")
            .arg("--pods")
            .arg(&self.pods)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(its))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        match self.take_up(ours, &child) {
            Ok(pidfd) => Ok(Raised { child, pidfd }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn take_up(&self, socket: OwnedFd, child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
        match receive::<Reply>(&socket)? {
            Some((Reply::Ready { version: VERSION }, _)) => {}
            Some((Reply::Ready { version }, _)) => {
                let message = format!("it is of version {version}, this agent of {VERSION}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            other => {
                let message = format!("it does not say that it is ready: {other:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = watched(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        self.set(Link::Up(socket));
        Ok(pidfd)
    }
}

/// A zygote that was ready.
struct Raised {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
}
