//! Containers that are forks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use nodule_sandbox_proto::zygote::{Order, Reply, receive, send};
use nodule_sandbox_proto::{Cause, Exit, Fate, Http, Process, Request, Stdin, VERSION};
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
    fn descriptors(&self) -> BTreeSet<String> {
        descriptors(self.process.pid)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn descriptors(pid: u32) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
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
    let own = |descriptors: BTreeSet<String>| -> BTreeSet<String> {
        // What is made anew each time has no number to tell one from the other.
        descriptors.into_iter().filter(|link| !link.starts_with("anon_inode")).collect()
    };
    let [one, other] = [own(forks[0].descriptors()), own(forks[1].descriptors())];
    let code = forks[0].setup.container.program.cwasm.display().to_string();
    let shared: Vec<_> = one.intersection(&other).collect();
    assert_eq!(shared, [&code], "but the code that both run");
    let zygotes = own(descriptors(zygote.child.id()));
    let inherited: Vec<_> = one.union(&other).filter(|link| zygotes.contains(*link)).collect();
    assert!(inherited.is_empty(), "{inherited:?}");
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
