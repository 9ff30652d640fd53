//! Containers, started as an agent starts them: a state folder, a socket, a process of their own user in the whole jail.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use nodule_sandbox_proto::frame::{Decoder, encode};
use nodule_sandbox_proto::zygote::Order;
use nodule_sandbox_proto::{
    Container, Http, Limits, Log, Mount, Net, Program, Report, Request, Started, State, Stdin,
    User, VERSION,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use super::meter::Group;
use super::zygote::Zygote;
use crate::paths;

/// The first user of the agent's default `podUsers`.
const FIRST_USER: u32 = 2_000_000_000;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a log is looked at; what counts is the time that its line itself tells.
const LOOK: Duration = Duration::from_millis(1);

/// How a container's process comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Fork,
    Exec,
}

/// What a container runs.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) program: Program,
    pub(super) args: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    /// How it is served, if it is.
    pub(super) http: Option<Http>,
}

/// Starts containers.
pub(super) struct Sandboxes {
    // Dropped first: it writes into the folder.
    pub(super) zygote: Zygote,
    /// What counts their memory; it goes when no process is in it.
    pub(super) group: Option<Group>,
    folder: TempDir,
    program: PathBuf,
    /// How many were started: numbers their folders and users.
    count: Cell<u32>,
}

impl Sandboxes {
    /// With state folders and logs where temporary files are: `$TMPDIR`.
    pub(super) fn new() -> Result<Self> {
        Self::within(&std::env::temp_dir())
    }

    /// With state folders and logs in a folder within this one.
    pub(super) fn within(parent: &Path) -> Result<Self> {
        let program = paths::program("nodule-sandbox")?;
        let folder = tempfile::tempdir_in(parent)?;
        let zygote = Zygote::start(&program, folder.path())?;
        Ok(Self { zygote, group: None, folder, program, count: Cell::new(0) })
    }

    /// The same in a cgroup that counts memory, where this user may make one: what is forked is born there.
    pub(super) fn counted() -> Result<Self> {
        let sandboxes = Self::new()?;
        Ok(Self { group: Group::of(sandboxes.zygote.pid()), ..sandboxes })
    }

    /// A folder that goes when all is measured.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts one, with all that the agent does for it.
    pub(super) fn start(&self, guest: &Guest, way: Way) -> Result<Running> {
        let number = self.count.replace(self.count.get() + 1);
        let folder = self.folder.path().join(number.to_string());
        let ordered = Timestamp::now();
        let state = State::new(&folder);
        let container = orders(guest, &folder, number);
        state.create(container.user.as_ref())?;
        state.write_container(&container)?;
        let diagnostics = File::create(folder.join("sandbox.log"))?;
        let socket = folder.join("sock");
        let listener = UnixListener::bind(&socket)?;
        let written = Timestamp::now();
        let (pid, pidfd, child) = match way {
            Way::Fork => {
                let order = Order { state: folder };
                let (pid, pidfd) =
                    self.zygote.fork(&order, [listener.as_fd(), diagnostics.as_fd()])?;
                (pid, pidfd, None)
            }
            Way::Exec => exec(&self.program, &folder, listener, diagnostics)?,
        };
        let forked = Timestamp::now();
        let log = container.log.path;
        Ok(Running { ordered, written, forked, pid, pidfd, child, socket, log, agent: None })
    }
}

/// What the agent writes down for a container of a pod of its own.
fn orders(guest: &Guest, folder: &Path, number: u32) -> Container {
    let id = FIRST_USER + number;
    let user =
        rustix::process::geteuid().is_root().then(|| User { uid: id, gid: id, groups: Vec::new() });
    Container {
        version: VERSION,
        id: format!("{number:064x}"),
        program: guest.program.clone(),
        args: guest.args.clone(),
        env: vec![("HOSTNAME".to_owned(), format!("pod-{number}"))],
        mounts: guest.mounts.clone(),
        stdin: Stdin::Empty,
        limits: Limits { memory: None },
        // The kubelet's defaults of containerLogMaxSize and containerLogMaxFiles.
        log: Log { path: folder.join("logs/0.log"), max_size: 10 << 20, max_files: 5 },
        user,
        cgroup: None,
        oom_score_adj: Some(1000),
        nice: None,
        net: Net::default(),
        config: BTreeMap::new(),
        http: guest.http.clone(),
        roots: Vec::new(),
    }
}

/// As the agent does without a zygote.
fn exec(
    program: &Path,
    folder: &Path,
    listener: UnixListener,
    diagnostics: File,
) -> Result<(u32, OwnedFd, Option<Child>)> {
    let mut command = Command::new(program);
    command.arg("run").arg("--state").arg(folder).env_clear().current_dir("/").process_group(0);
    command.stdin(OwnedFd::from(listener)).stdout(diagnostics.try_clone()?).stderr(diagnostics);
    let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    Ok((child.id(), pidfd, Some(child)))
}

/// A container's process. Dropped, it is killed, and waited for.
pub(super) struct Running {
    /// Before the first thing is done for it.
    pub(super) ordered: Timestamp,
    /// What the process needs is in its folder.
    pub(super) written: Timestamp,
    /// There is a process.
    pub(super) forked: Timestamp,
    pub(super) pid: u32,
    pidfd: OwnedFd,
    child: Option<Child>,
    socket: PathBuf,
    log: PathBuf,
    /// The agent's connection.
    agent: Option<UnixStream>,
}

impl Running {
    /// Connects as the agent does, hears that the guest started, and stays connected.
    pub(super) fn attend(&mut self) -> Result<Started> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&encode(&Request::Hello { version: VERSION })?)?;
        let mut heard = Decoder::<Report>::new();
        loop {
            match heard.read(&mut stream)?.context("the sandbox closed its socket")? {
                Report::Hello { .. } | Report::Limited { .. } => {}
                Report::Started(started) => {
                    self.agent = Some(stream);
                    return Ok(started);
                }
                Report::Ended(exit) => bail!("the container ended: {exit:?}"),
            }
        }
    }

    /// The time that the log's first line tells.
    pub(super) async fn first_line(&self) -> Result<Timestamp> {
        let look = async {
            loop {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                if let Some((line, _)) = text.split_once('\n') {
                    return line
                        .split(' ')
                        .next()
                        .context("a log line")?
                        .parse()
                        .context("its time");
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        seen.with_context(|| format!("no line in {}", self.log.display()))?
    }

    /// Waits for its end and gives what it wrote to standard output.
    pub(super) fn output(self) -> Result<String> {
        ensure!(self.has_ended()?, "process {} does not end", self.pid);
        let log = fs::read_to_string(&self.log)?;
        // A time, a stream, a tag, a text.
        let texts = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        Ok(texts.collect::<Vec<_>>().join("\n"))
    }

    fn has_ended(&self) -> Result<bool> {
        let patience = Timespec::try_from(PATIENCE)?;
        Ok(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&patience))? > 0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ended = self.has_ended();
        if let Some(child) = &mut self.child {
            let _reaped = child.wait();
        }
    }
}
