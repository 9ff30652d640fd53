//! A machine of a test's own: a folder with programs in it, an agent of its own, and everything ended when it is dropped.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::guests::{WAITS, says};

/// Nothing that a test waits for takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for (name, wat) in [("waits", WAITS.to_owned()), ("says", says(0)), ("fails", says(3))] {
            let wasm = wat::parse_str(&wat).unwrap();
            fs::write(machine.file(&format!("{name}.wasm")), wasm).unwrap();
        }
        machine
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a manifest of one pod with these lines of its one container.
    pub(crate) fn pod(&self, name: &str, container: &str) -> PathBuf {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: main, {container}}}\n"
        );
        self.write(&format!("{name}.yaml"), &text)
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.file(file);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodule"));
        command.args(arguments).arg("--root-dir").arg(self.file("root"));
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let output = self.command(&arguments).output();
        timeout(PATIENCE, output).await.expect("it ends").unwrap()
    }

    /// What a command that ends well prints.
    pub(crate) async fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Begins a command; its output goes to a file of this name.
    pub(crate) fn begin(&self, arguments: &[&str], file: &str) -> Child {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let out = fs::File::create(self.file(file)).unwrap();
        self.command(&arguments).stdout(out).spawn().unwrap()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("not seen: {what}\n{}", self.log()));
    }

    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.file(file)).unwrap_or_default()
    }

    /// The agent in the background.
    pub(crate) fn agent(&self) -> Option<Pid> {
        Pid::from_raw(self.text("root/agent.lock").parse().ok()?)
    }

    pub(crate) fn log(&self) -> String {
        self.text("root/agent.log")
    }
}

pub(crate) async fn end(mut child: Child, signal: Option<Signal>) -> Option<i32> {
    if let Some(signal) = signal {
        let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }
    timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap().code()
}

impl Drop for Machine {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nodule"));
        command.args(["rm", "--all", "--force", "--root-dir"]).arg(self.file("root"));
        let _removed = command.stdin(Stdio::null()).output();
        if let Some(agent) = self.agent() {
            let _ended = kill_process(agent, Signal::TERM);
        }
        // Where the test is root's, the agent has mounted a place for Secrets.
        let place = self.file("root/run/volumes");
        let _unmounted = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(place)
            .stderr(Stdio::null())
            .status();
    }
}
