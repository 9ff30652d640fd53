//! Containers that outlive what is known of them: real sandboxes, found again.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::http::Method;
use nodule_pod::Start;
use nodule_sandbox_proto::zygote::{Order, Reply, receive, send};
use nodule_sandbox_proto::{CONTAINER, Process, State, VERSION};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::api::Api;
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, gone, on_disk, program};

/// Never ends by itself.
const SPINS: &str = r#"(module (func (export "_start") (loop $on (br $on))))"#;

/// Reads standard input to its end, then ends well.
const WAITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 32) "\30\00\00\00\08\00\00\00")
    (func (export "_start") (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 72)))))"#;

struct Node {
    api: Api,
    registry: Registry,
    root: Root,
}

impl Node {
    async fn new() -> Self {
        let registry = Registry::start(&[("spins", SPINS), ("waits", WAITS)]).await;
        Self { api: Api::start().await, registry, root: Root::new() }
    }

    async fn agent(&self) -> Agent {
        Agent::with(&self.api, self.root.path(), &[&self.registry.host]).await
    }

    /// One that forks its sandboxes, which this program runs.
    async fn forking(&self, sandbox: &Path) -> Agent {
        let (registries, sandbox) = ([self.registry.host.as_str()], sandbox.to_owned());
        Agent::changed(&self.api, self.root.path(), &registries, None, |config| {
            config.start = Start::Fork;
            config.sandbox = sandbox;
        })
        .await
    }

    fn apply(&self) {
        self.apply_image("spins");
    }

    fn apply_image(&self, image: &str) {
        let mut pod = crate::pod("web", "u1");
        pod["spec"]["containers"] = json!([{
            "name": "app", "image": self.registry.image(image), "stdin": true,
            "imagePullPolicy": "IfNotPresent"}]);
        self.api.apply(pod);
    }

    async fn running(&self) -> Value {
        self.api.status("web", "/phase", "Running").await
    }

    fn state(&self) -> State {
        State::new(self.root.path().join("pods/u1/containers/app/0"))
    }

    /// The container's process, once it has said which it is.
    async fn process(&self) -> Process {
        let named = || self.state().process().ok().flatten();
        on_disk("the process", || named().is_some()).await;
        named().unwrap()
    }

    /// What the container was told was told by an agent of this version; and it has said something for its end.
    fn told_by(&self, version: u32) {
        let state = self.state();
        let orders = state.folder().join(CONTAINER);
        let mut told: Value = serde_json::from_slice(&fs::read(&orders).unwrap()).unwrap();
        told["version"] = json!(version);
        fs::write(orders, told.to_string()).unwrap();
        fs::write(state.folder().join("termination/termination-log"), "last words").unwrap();
    }

    /// A program in the sandbox's place.
    fn script(&self, text: &str) -> PathBuf {
        let path = self.root.path().join("sandbox.sh");
        let mut file = fs::File::create(&path).unwrap();
        write!(file, "#!/bin/sh\n{text}\n").unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

fn runs(process: Process) -> bool {
    process.is_alive().unwrap()
}

/// Neither running nor waiting to be waited for.
fn is_there(process: Process) -> bool {
    Path::new("/proc").join(process.pid.to_string()).exists()
}

#[tokio::test]
async fn a_record_that_cannot_be_read_costs_no_container_its_life() {
    for damage in ["{\"version\": 99}", "{\"version\": 1", ""] {
        let node = Node::new().await;
        let first = node.agent().await;
        node.apply();
        node.running().await;
        let process = node.process().await;
        drop(first);
        fs::write(node.root.path().join("pods/u1/record.json"), damage).unwrap();
        let _second = node.agent().await;
        let lost = |api: &Api| api.events().into_iter().find(|(reason, _)| reason == "RecordLost");
        node.api.until("the event", lost).await;
        let record = node.root.path().join("pods/u1/record.json");
        let known = || fs::read_to_string(&record).unwrap().contains(&process.pid.to_string());
        on_disk("the container in the record", known).await;
        let told = node.running().await;
        let status = &told["status"]["containerStatuses"][0];
        assert_eq!(
            (&status["restartCount"], &status["ready"]),
            (&json!(0), &json!(true)),
            "{told:#}"
        );
        assert!(runs(process) && node.process().await == process, "it was started again");
        node.api.delete("web", 1);
        gone(node.root.path(), "u1").await;
        assert!(!runs(process));
    }
}

#[tokio::test]
async fn what_is_left_of_a_pod_that_the_cluster_does_not_have_ends() {
    let node = Node::new().await;
    let first = node.agent().await;
    node.apply();
    node.running().await;
    let process = node.process().await;
    drop(first);
    fs::write(node.root.path().join("pods/u1/record.json"), "").unwrap();
    fs::create_dir_all(node.root.path().join("pods/u2")).unwrap();
    node.api.lose("web");
    let _second = node.agent().await;
    gone(node.root.path(), "u1").await;
    gone(node.root.path(), "u2").await;
    assert!(!runs(process));
    let logs = fs::read_dir(node.root.path().join("logs")).unwrap().count();
    assert_eq!(logs, 0, "its logs are left");
}

/// A container of a sandbox that says it is of `version`, after its agent was followed by another; and how it ended, for this
/// reason.
async fn adopted(version: u32, reason: &str) -> (Node, Value) {
    let node = Node::new().await;
    let sandbox = program("NODULE_SANDBOX");
    let text = format!("NODULE_PROTOCOL_VERSION={version} exec {} \"$@\"", sandbox.display());
    let script = node.script(&text);
    let first = node.forking(&script).await;
    node.apply_image("waits");
    node.running().await;
    let process = node.process().await;
    drop(first);
    node.told_by(version);
    let record = node.root.path().join("pods/u1/record.json");
    let written = || fs::metadata(&record).unwrap().modified().unwrap();
    let before = written();
    let _second = node.forking(&script).await;
    on_disk("the container adopted", || written() != before).await;
    assert!(runs(process), "it was killed");
    node.api.delete("web", 1);
    let ended = "/containerStatuses/0/state/terminated/reason";
    let told = node.api.status("web", ended, reason).await;
    gone(node.root.path(), "u1").await;
    assert!(!runs(process));
    (node, told["status"]["containerStatuses"][0]["state"]["terminated"].clone())
}

#[tokio::test]
async fn an_agent_speaks_with_sandboxes_of_the_last_release_and_the_next() {
    for version in [VERSION - 1, VERSION, VERSION + 1] {
        let (node, end) = adopted(version, "Completed").await;
        // It has heard the stop notice.
        assert_eq!(end["exitCode"], 0, "{end}");
        assert_eq!(end["message"], "last words", "{end}");
        assert!(node.api.events().iter().all(|(reason, _)| reason != "SandboxVersion"));
    }
}

#[tokio::test]
async fn a_sandbox_that_no_agent_here_speaks_with_runs_on_and_is_told_of() {
    let (node, end) = adopted(VERSION + 2, "Error").await;
    assert_eq!(end["exitCode"], 137, "{end}");
    assert!(end["startedAt"].is_string(), "{end}");
    let told = |api: &Api| api.events().into_iter().find(|(reason, _)| reason == "SandboxVersion");
    let (_, message) = node.api.until("the event", told).await;
    assert!(message.contains(&format!("is of version {}", VERSION + 2)), "{message}");
}

#[tokio::test]
async fn the_first_container_waits_for_the_zygote() {
    let node = Node::new().await;
    let pipe = node.root.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let sandbox = program("NODULE_SANDBOX");
    let text = format!(
        "[ \"$1\" = zygote ] && read -r line < {}\nexec {} \"$@\"",
        pipe.display(),
        sandbox.display()
    );
    let _agent = node.forking(&node.script(&text)).await;
    node.apply();
    on_disk("the container's orders", || node.state().has_container()).await;
    // Opening it waits for the reader: the zygote is there, and nothing but this makes it ready.
    let open = move || fs::write(&pipe, "\n").unwrap();
    tokio::task::spawn_blocking(open).await.unwrap();
    node.running().await;
    let process = node.process().await;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
    let parent = fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap();
    assert!(parent.contains("zygote"), "its parent is {parent:?}");
    node.api.delete("web", 1);
    gone(node.root.path(), "u1").await;
}

#[tokio::test]
async fn a_pod_that_is_deleted_while_nobody_knows_whether_it_was_forked_leaves_no_process() {
    let node = Node::new().await;
    let sandbox = program("NODULE_SANDBOX");
    let fake = std::env::current_exe().unwrap();
    let text = format!(
        "[ \"$1\" = zygote ] || exec {0} \"$@\"\nNODULE_SANDBOX={0} exec {1} --exact \
         adoption::a_zygote_that_forks_once_and_dies_before_it_says_so --ignored --nocapture",
        sandbox.display(),
        fake.display()
    );
    let _agent = node.forking(&node.script(&text)).await;
    node.apply();
    let process = node.process().await;
    node.api.delete("web", 1);
    gone(node.root.path(), "u1").await;
    on_disk("the process gone", || !is_there(process)).await;
}

#[test]
#[ignore = "a program: a test above starts it in the zygote's place"]
#[expect(clippy::zombie_processes, reason = "that nobody waits for it is the test")]
fn a_zygote_that_forks_once_and_dies_before_it_says_so() {
    let agent = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    send(agent.as_fd(), &Reply::Ready { version: VERSION }, &[]).unwrap();
    let (order, descriptors) = receive::<Order>(&agent).unwrap().unwrap();
    let [listener, _log] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
    Command::new(program("NODULE_SANDBOX"))
        .args(["run", "--state"])
        .arg(&order.state)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
}

#[tokio::test]
async fn the_next_agent_goes_on_from_what_was_told_and_not_from_what_was_recorded_of_it() {
    let node = Node::new().await;
    let agent = node.agent().await;
    node.apply_image("waits");
    node.running().await;
    drop(agent);
    // As if it had been long ago, and the agent killed before it saw its own words.
    let then = "2020-01-01T00:00:00Z";
    let mut told = node.api.pod("web").unwrap();
    for condition in told["status"]["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(then);
    }
    node.api.apply(told);
    let path = node.root.path().join("pods/u1/record.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["pod"]["status"] = json!({"phase": "Pending"});
    record["pod"]["metadata"]["resourceVersion"] = json!("1");
    fs::write(&path, record.to_string()).unwrap();

    let patches = || node.api.requests(&Method::PATCH, "/pods/web/status");
    let before = patches().len();
    let _agent = node.agent().await;
    node.api.until("words", |_| (patches().len() > before).then_some(())).await;
    for (_, patch) in patches().split_off(before) {
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        let kept = conditions.iter().all(|one| one["lastTransitionTime"] == then);
        assert!(kept && !conditions.is_empty(), "{conditions:?}");
        assert_eq!(patch["status"]["phase"], "Running");
    }
    node.api.delete("web", 1);
    gone(node.root.path(), "u1").await;
}
