//! Containers that are forks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nodule_sandbox_proto::zygote::{Order, Reply, receive, send};
use nodule_sandbox_proto::{Access, Cause, Exit, Fate, Http, Process, Request, Stdin, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

use crate::guests::{both, module, web};
use crate::setup::{Agent, PATIENCE, Setup, until};

/// A zygote and the agent's end of its socket. Dropped, it is killed.
struct Zygote {
    agent: Option<OwnedFd>,
    child: Child,
}

/// A container's process.
struct Forked {
    setup: Setup,
    process: Process,
    pidfd: OwnedFd,
}

impl Zygote {
    fn start() -> Self {
        let (agent, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nodule-sandbox"))
            .args(["zygote", "--pods", "/nowhere"])
            .stdin(Stdio::from(its))
            .env_clear()
            .spawn()
            .unwrap();
        let (ready, _) = receive::<Reply>(&agent).unwrap().unwrap();
        assert_eq!(ready, Reply::Ready { version: VERSION });
        Self { agent: Some(agent), child }
    }

    fn agent(&self) -> &OwnedFd {
        self.agent.as_ref().unwrap()
    }

    fn order(&self, setup: &Setup) {
        setup.write();
        let listener = UnixListener::bind(setup.folder.path().join("sock")).unwrap();
        let log = File::create(setup.folder.path().join("sandbox.log")).unwrap();
        let order = Order { state: setup.folder.path().to_owned() };
        send(self.agent().as_fd(), &order, &[listener.as_fd(), log.as_fd()]).unwrap();
    }

    fn fork(&self, setup: Setup) -> Forked {
        self.order(&setup);
        let (reply, mut descriptors) = receive::<Reply>(self.agent()).unwrap().unwrap();
        let Reply::Forked { process } = reply else { panic!("{reply:?}") };
        Forked { setup, process, pidfd: descriptors.pop().unwrap() }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Forked {
    fn wait(&self) {
        let patience = Timespec::try_from(PATIENCE).unwrap();
        let mut ends = [PollFd::new(&self.pidfd, PollFlags::IN)];
        assert_eq!(poll(&mut ends, Some(&patience)).unwrap(), 1, "it does not end");
    }

    fn exit(&self) -> Exit {
        self.wait();
        self.setup.state().exit().unwrap().unwrap()
    }

    /// How it ended, once the zygote has written it down.
    fn fate(&self) -> Fate {
        until("the zygote's word", || self.setup.state().fate().unwrap())
    }

    fn connect(&self) -> Agent {
        Agent::connect(&self.setup)
    }

    /// What its descriptors are.
    fn descriptors(&self) -> BTreeSet<Open> {
        open_in(self.process.pid)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A file that is open: its device and number, or of what has none of its own, its kind.
type Open = (u64, u64, String);

fn open_in(pid: u32) -> BTreeSet<Open> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter_map(|path| open(&path).ok()).collect()
}

fn open(path: &Path) -> std::io::Result<Open> {
    let link = fs::read_link(path)?.to_string_lossy().into_owned();
    let kind = link.strip_prefix("anon_inode:").unwrap_or_default().to_owned();
    let file = fs::metadata(path)?;
    Ok(if kind.is_empty() { (file.dev(), file.ino(), kind) } else { (0, 0, kind) })
}

/// How many descriptors of each kind a process has.
fn kinds(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let Ok((_, _, kind)) = open(&path) else { continue };
        let kind = if kind.is_empty() {
            format!("{:?}", fs::metadata(&path).unwrap().file_type())
        } else {
            kind
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn held() -> Setup {
    Setup::new(module(), &["cat"]).stdin(Stdin::Held)
}

#[test]
fn a_fork_runs_a_container_as_an_exec_does() {
    let zygote = Zygote::start();
    for program in both() {
        let forked = zygote.fork(Setup::new(program, &["exit", "1"]));
        let mut agent = forked.connect();
        agent.greet();
        assert_eq!((agent.ended().cause, agent.hear()), (Cause::Exited, None));
        assert_eq!(forked.exit().code, 1);
        assert_eq!(forked.fate(), Fate::Code(1));
        assert_eq!(forked.setup.process(), forked.process);
    }
}

#[test]
fn one_that_is_killed_has_a_known_fate() {
    let zygote = Zygote::start();
    let forked = zygote.fork(held());
    forked.connect().greet();
    pidfd_send_signal(&forked.pidfd, Signal::KILL).unwrap();
    assert_eq!(forked.fate(), Fate::Signal(9));
    assert_eq!(forked.setup.state().exit().unwrap(), None);
}

#[test]
fn no_two_forks_have_the_same_random_numbers() {
    let zygote = Zygote::start();
    let draw = |program| {
        let forked = zygote.fork(Setup::new(program, &["random", "32"]));
        assert_eq!(forked.exit().code, 0);
        fs::read_to_string(&forked.setup.container.log.path).unwrap().split_off(40)
    };
    for program in both() {
        assert_ne!(draw(program.clone()), draw(program));
    }
}

#[test]
fn a_fork_holds_nothing_of_the_zygotes_or_its_siblings() {
    let zygote = Zygote::start();
    let forks = [zygote.fork(held()), zygote.fork(held())];
    for fork in &forks {
        let mut agent = fork.connect();
        agent.greet();
        agent.started();
    }
    let own = |descriptors: BTreeSet<Open>| -> BTreeSet<Open> {
        // What is made anew each time has no number to tell one from the other.
        descriptors.into_iter().filter(|(_, _, kind)| kind.is_empty()).collect()
    };
    let [one, other] = [own(forks[0].descriptors()), own(forks[1].descriptors())];
    let code = fs::metadata(&forks[0].setup.container.program.cwasm).unwrap();
    let code = (code.dev(), code.ino(), String::new());
    let shared: Vec<_> = one.intersection(&other).collect();
    assert_eq!(shared, [&code], "but the code that both run");
    let zygotes = own(open_in(zygote.child.id()));
    let inherited: Vec<_> = one.union(&other).filter(|file| zygotes.contains(*file)).collect();
    assert!(inherited.is_empty(), "{inherited:?}");
}

#[test]
fn a_fork_has_the_descriptors_of_an_exec_and_no_other() {
    let zygote = Zygote::start();
    let forked = zygote.fork(held());
    let executed = held().start();
    let mut agents = [forked.connect(), executed.connect()];
    for agent in &mut agents {
        agent.greet();
        agent.started();
    }
    // What both make for themselves; a signalfd of the zygote's, say, would be one more.
    let (forked, executed) = (kinds(forked.process.pid), kinds(executed.child.id()));
    assert_eq!(forked, executed);
    assert!(executed.keys().any(|kind| kind.contains("eventfd")), "{executed:?}");
}

#[test]
fn no_folder_that_a_container_holds_is_on_a_mount_of_the_hosts() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let zygote = Zygote::start();
    let forked = zygote.fork(held().mount("/usr", "/usr", Access::ReadOnly));
    let mut agent = forked.connect();
    agent.greet();
    agent.started();
    let process = format!("/proc/{}", forked.process.pid);
    let mounts = fs::read_to_string(format!("{process}/mountinfo")).unwrap();
    let mounts: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut folders = 0;
    for entry in fs::read_dir(format!("{process}/fd")).unwrap() {
        let entry = entry.unwrap();
        if fs::metadata(entry.path()).is_ok_and(|file| file.is_dir()) {
            let number = entry.file_name().into_string().unwrap();
            let info = fs::read_to_string(format!("{process}/fdinfo/{number}")).unwrap();
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap().trim();
            assert!(mounts.contains(&mount), "{:?}: {info}{mounts:?}", fs::read_link(entry.path()));
            folders += 1;
        }
    }
    // Its mount, the one for what it says, and that of its log.
    assert!(folders >= 3, "{folders}");
}

#[test]
fn a_zygote_without_agent_waits_for_its_children_and_ends() {
    let mut zygote = Zygote::start();
    let forked = zygote.fork(held());
    let mut agent = forked.connect();
    agent.greet();
    agent.started();
    zygote.agent = None;
    agent.say(&nodule_sandbox_proto::Request::Stop);
    assert_eq!(agent.ended().code, 0);
    assert_eq!(forked.fate(), Fate::Code(0));
    assert!(zygote.child.wait().unwrap().success());
}

#[test]
fn an_order_of_an_agent_that_is_gone_is_none() {
    let mut zygote = Zygote::start();
    kill_process(zygote.pid(), Signal::STOP).unwrap();
    let setup = held();
    zygote.order(&setup);
    zygote.agent = None;
    kill_process(zygote.pid(), Signal::CONT).unwrap();
    assert!(zygote.child.wait().unwrap().success());
    assert_eq!(setup.state().process().unwrap(), None);
}

#[test]
fn forks_live_on_when_their_zygote_is_killed() {
    let mut zygote = Zygote::start();
    let forked = zygote.fork(held());
    let mut agent = forked.connect();
    agent.greet();
    agent.started();
    zygote.child.kill().unwrap();
    zygote.child.wait().unwrap();
    agent.say(&nodule_sandbox_proto::Request::Stop);
    assert_eq!(agent.ended().code, 0);
    forked.wait();
}

#[test]
fn a_fork_answers_requests() {
    let zygote = Zygote::start();
    let mut setup = Setup::new(web(), &[]);
    setup.container.http = Some(Http::new(([127, 0, 0, 1], 0).into()));
    let forked = zygote.fork(setup);
    let mut agent = Agent::connect(&forked.setup);
    agent.greet();
    let mut stream = TcpStream::connect(agent.started().served.unwrap()).unwrap();
    let request = "GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("hello"), "{answer}");
    agent.say(&Request::Stop);
    let exit = agent.ended();
    assert_eq!((exit.cause, exit.code), (Cause::Exited, 0));
}
