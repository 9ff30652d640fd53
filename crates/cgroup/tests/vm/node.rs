//! What the tests have in common: a tree of their own, processes in it, and waiting.

use std::io::Read;
use std::ops::Deref;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nodule_cgroup::{Container, Group, Limits, Tree};
use rustix::event::{Timespec, poll};

/// Where cgroup v2 is.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";

/// No limits at all.
pub(crate) const NONE: Limits =
    Limits { memory: None, cpu_request: None, cpu_limit: None, pids: None };

pub(crate) const MIB: u64 = 1 << 20;

/// A tree in a root of its own, whose pods end with the test.
pub(crate) struct Node(Tree);

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        Self(Tree::open(Path::new(MOUNT), Path::new(name)).unwrap())
    }
}

impl Deref for Node {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let removed = self.0.pods().and_then(|pods| pods.iter().try_for_each(|pod| pod.remove()));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// A script that runs; it ends with this at the latest.
pub(crate) struct Process(Child);

/// Starts a script that enters the container first, as a user without rights.
pub(crate) fn start(container: &Container, script: &str) -> Process {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("set -e; echo 0 >&0; exec </dev/null; set +e; {script}"));
    command.uid(1000).gid(1000).stdin(container.join().unwrap());
    Process(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_succeeded(self) -> bool {
        self.end().success()
    }

    pub(crate) fn was_killed(self) -> bool {
        self.end().signal() == Some(9)
    }

    fn end(mut self) -> ExitStatus {
        until("it ends", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }

    /// What it writes as errors, until its end and that of all that have its output.
    pub(crate) fn errors(&mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A script that holds so many MiB of memory until it is killed: dd fills its buffer, then nobody takes it.
pub(crate) fn hold(mib: u64) -> String {
    format!("dd if=/dev/zero bs={mib}M count=1 | sleep 100000")
}

/// A script that uses all CPU time that it gets.
pub(crate) const SPIN: &str = "while :; do :; done";

pub(crate) fn is_empty(group: &Group) -> bool {
    group.stats().unwrap().pids == 0
}

/// Looks until it is so: for some minutes, which is longer than anything takes here.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    for _ in 0..4000 {
        if so() {
            return;
        }
        poll(&mut [], Some(&pause)).unwrap();
    }
    panic!("not seen: {what}");
}

/// What a file of the cgroup holds.
pub(crate) fn read(group: &Group, file: &str) -> String {
    std::fs::read_to_string(group.path().join(file)).unwrap().trim_end().to_owned()
}
