//! A container to be, and a sandbox that runs it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use nodule_sandbox_proto::frame::{Decoder, encode};
use nodule_sandbox_proto::{
    Access, Container, Exit, Limits, Log, Mount, Net, Process, Program, Report, Request, Started,
    State, Stdin, VERSION,
};
use std::io::Write;
use tempfile::TempDir;

/// Nothing that is waited for takes so long; a test that hangs fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = SystemTime::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed().unwrap_or_default() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A state folder with what the agent writes into it.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    pub(crate) container: Container,
}

impl Setup {
    /// The program with its arguments (`argv[0]` is given), an empty standard input and nothing else.
    pub(crate) fn new(program: Program, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let args =
            std::iter::once("probe").chain(arguments.iter().copied()).map(Into::into).collect();
        let container = Container {
            version: VERSION,
            id: "0123456789abcdef".repeat(4),
            program,
            args,
            env: Vec::new(),
            mounts: Vec::new(),
            stdin: Stdin::Empty,
            limits: Limits::default(),
            user: None,
            cgroup: None,
            oom_score_adj: None,
            nice: None,
            net: Net::default(),
            config: BTreeMap::new(),
            http: None,
            roots: Vec::new(),
            log: Log { path: folder.path().join("logs/0.log"), max_size: 10 << 20, max_files: 5 },
        };
        Self { folder, container }
    }

    /// A module in the text format.
    pub(crate) fn text(wat: &str) -> Self {
        let mut setup = Self::new(crate::guests::module(), &[]);
        setup.container.program = crate::guests::text(setup.folder.path(), wat);
        setup
    }

    pub(crate) fn stdin(mut self, stdin: Stdin) -> Self {
        self.container.stdin = stdin;
        self
    }

    pub(crate) fn memory(mut self, mib: u64) -> Self {
        self.container.limits.memory = Some(mib << 20);
        self
    }

    pub(crate) fn mount(mut self, host: impl Into<PathBuf>, guest: &str, access: Access) -> Self {
        self.container.mounts.push(Mount {
            host: host.into(),
            sub_path: None,
            guest: guest.into(),
            access,
        });
        self
    }

    /// A part of a folder, which may be changed.
    pub(crate) fn part(mut self, host: impl Into<PathBuf>, sub_path: &str, guest: &str) -> Self {
        self = self.mount(host, guest, Access::ReadWrite);
        if let Some(mount) = self.container.mounts.last_mut() {
            mount.sub_path = Some(sub_path.to_owned());
        }
        self
    }

    pub(crate) fn state(&self) -> State {
        State::new(self.folder.path())
    }

    /// Binds the socket, as the agent does, and gives what the sandbox gets as its standard input.
    pub(crate) fn bind(&self) -> Stdio {
        OwnedFd::from(UnixListener::bind(self.folder.path().join("sock")).unwrap()).into()
    }

    /// Writes what the agent writes.
    pub(crate) fn write(&self) {
        self.state().create(self.container.user.as_ref()).unwrap();
        self.state().write_container(&self.container).unwrap();
    }

    /// Which process it is.
    pub(crate) fn process(&self) -> Process {
        self.state().process().unwrap().unwrap()
    }

    /// Starts the sandbox.
    pub(crate) fn start(self) -> Sandbox {
        self.write();
        self.start_as_it_is()
    }

    /// Starts the sandbox on a state folder that the test has written.
    pub(crate) fn start_as_it_is(self) -> Sandbox {
        self.state().create(None).unwrap();
        let diagnostics = self.folder.path().join("sandbox.log");
        let diagnostics = File::options().append(true).create(true).open(diagnostics).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nodule-sandbox"))
            .args(["run", "--state"])
            .arg(self.folder.path())
            .stdin(self.bind())
            .stdout(diagnostics.try_clone().unwrap())
            .stderr(diagnostics)
            .env_clear()
            .spawn()
            .unwrap();
        Sandbox { setup: self, child }
    }

    /// Runs the container to its end.
    pub(crate) fn run(self) -> Ended {
        self.start().wait()
    }
}

/// A running sandbox. Dropped, it is killed.
pub(crate) struct Sandbox {
    pub(crate) setup: Setup,
    pub(crate) child: Child,
}

impl Sandbox {
    /// A new agent.
    pub(crate) fn connect(&self) -> Agent {
        Agent::connect(&self.setup)
    }

    /// Waits for the process.
    pub(crate) fn wait(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        let exit = self.setup.state().exit().unwrap();
        let diagnostics = fs::read_to_string(self.setup.folder.path().join("sandbox.log")).unwrap();
        Ended {
            status,
            exit,
            diagnostics,
            log: self.log(),
            started: self.setup.state().started().unwrap(),
            process: self.setup.process(),
        }
    }

    /// The log as it is now.
    pub(crate) fn log(&self) -> Vec<Line> {
        let text = fs::read_to_string(&self.setup.container.log.path).unwrap_or_default();
        text.lines().map(Line::parse).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What is left of a sandbox.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    exit: Option<Exit>,
    pub(crate) started: Option<Started>,
    pub(crate) process: Process,
    pub(crate) diagnostics: String,
    pub(crate) log: Vec<Line>,
}

impl Ended {
    /// What `exit.json` says. The process has said the same by its exit code.
    pub(crate) fn exit(&self) -> &Exit {
        let exit = self
            .exit
            .as_ref()
            .unwrap_or_else(|| panic!("no exit.json: {} {}", self.status, self.diagnostics));
        assert_eq!(self.status.code(), Some(i32::from(exit.code)));
        exit
    }

    pub(crate) fn has_exit(&self) -> bool {
        self.exit.is_some()
    }

    /// The text of the log, without times and tags.
    pub(crate) fn text(&self) -> Vec<&str> {
        self.log.iter().map(|line| line.text.as_str()).collect()
    }
}

/// A line of the log format of the Container Runtime Interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) stream: String,
    pub(crate) tag: String,
    pub(crate) text: String,
}

impl Line {
    fn parse(line: &str) -> Self {
        let [_time, stream, tag, text] =
            line.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
        Self { stream: stream.into(), tag: tag.into(), text: text.into() }
    }
}

/// An agent's connection.
pub(crate) struct Agent {
    pub(crate) stream: UnixStream,
    decoder: Decoder<Report>,
}

impl Agent {
    /// Connects, and says nothing yet.
    pub(crate) fn connect(setup: &Setup) -> Self {
        let stream = UnixStream::connect(setup.folder.path().join("sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::new() }
    }

    pub(crate) fn say(&mut self, request: &Request) {
        self.stream.write_all(&encode(request).unwrap()).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Option<Report> {
        self.decoder.read(&mut self.stream).unwrap()
    }

    /// Says hello and hears the container's id.
    pub(crate) fn greet(&mut self) -> String {
        self.say(&Request::Hello { version: VERSION });
        match self.hear() {
            Some(Report::Hello { version: VERSION, id }) => id,
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Hears that the guest started.
    pub(crate) fn started(&mut self) -> Started {
        match self.hear() {
            Some(Report::Started(started)) => started,
            other => panic!("not started: {other:?}"),
        }
    }

    /// Hears how it ended, whether or not it hears before that it started.
    pub(crate) fn ended(&mut self) -> Exit {
        loop {
            match self.hear() {
                Some(Report::Started(_)) => {}
                Some(Report::Ended(exit)) => return exit,
                other => panic!("not ended: {other:?}"),
            }
        }
    }
}
