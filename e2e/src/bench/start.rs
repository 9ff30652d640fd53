//! What a pod's start costs, beside a bare start of the same sandbox, in one run.
//!
//! Three spans, each over the same number of starts, one after the other, image present and compiled:
//! the agent sees the pod → its first log line; the pod is bound → a watch sees it Running; exec of the sandbox → first
//! log line. Only their ratios mean something: the machine is whatever it is.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{Stream, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use nodule_sandbox_proto::State;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::stats::quantile;
use crate::agent::Options;
use crate::terminal::answer;
use crate::test::{self, Test};
use crate::{paths, wait};

/// How many starts are measured of each kind.
const STARTS: usize = 50;
/// How long one start may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a log is looked at for its first line; what is measured is the time that the line itself tells.
const LOOK: Duration = Duration::from_millis(1);

/// Measures and prints a table.
pub async fn run() -> Result<()> {
    let options = Options { alone: true, max_pods: 250, ..Options::default() };
    test::run_with(&options, async |test| {
        let mut pods = Pods::watch(test);
        // The first one has the image pulled and compiled.
        let first = pods.start("warm").await?;
        let mut inside = Vec::new();
        let mut outside = Vec::new();
        for number in 0..STARTS {
            let start = pods.start(&format!("pod-{number}")).await?;
            inside.push(start.first_line.duration_since(start.seen_by_agent).as_secs_f64());
            outside.push(start.seen_running.duration_since(start.bound).as_secs_f64());
        }
        let mut bare = Vec::new();
        for _ in 0..STARTS {
            bare.push(bare_start(&first.container).await?);
        }
        report(&mut [
            ("pod seen by the agent → first log line", inside),
            ("pod bound → Running seen by a watch", outside),
            ("bare exec of the sandbox → first log line", bare),
        ]);
        Ok(())
    })
    .await
}

/// The moments of one pod's start.
struct Start {
    bound: Timestamp,
    seen_by_agent: Timestamp,
    first_line: Timestamp,
    seen_running: Timestamp,
    /// The state folder of its container, where the sandbox's orders are.
    container: PathBuf,
}

type Changes = Pin<Box<dyn Stream<Item = watcher::Result<Pod>> + Send>>;

/// Starts pods and watches all of them by one watch.
struct Pods<'a, 'b> {
    test: &'a Test<'b>,
    changes: Changes,
    running: HashMap<String, Timestamp>,
}

impl<'a, 'b> Pods<'a, 'b> {
    fn watch(test: &'a Test<'b>) -> Self {
        let changes = watcher(test.api(), wait::all()).applied_objects().default_backoff();
        Self { test, changes: Box::pin(changes), running: HashMap::new() }
    }

    async fn start(&mut self, name: &str) -> Result<Start> {
        let mut spec = self.test.spec(&["lines", "0", "600000"]);
        let node = json!(self.test.agent.name());
        spec.as_object_mut().context("a pod's spec")?.insert("nodeName".to_owned(), node);
        let pod = self.test.pod(name, spec).await?;
        let bound = Timestamp::now();
        let seen = tokio::time::timeout(PATIENCE, self.until_running(name)).await;
        let seen_running = seen.with_context(|| format!("pod {name} does not run"))??;
        let uid = pod.metadata.uid.context("a pod's uid")?;
        let folder = self.test.agent.file("root").join("pods").join(&uid);
        let logs = format!("{}_{name}_{uid}", self.test.namespace);
        let log = self.test.agent.file("pod-logs").join(logs).join("main/0.log");
        Ok(Start {
            bound,
            seen_by_agent: first_seen(&folder.join("record.json"))?,
            first_line: first_line(&log).await?,
            seen_running,
            container: folder.join("containers/main/0"),
        })
    }

    async fn until_running(&mut self, name: &str) -> Result<Timestamp> {
        while !self.running.contains_key(name) {
            let Some(pod) = self.changes.try_next().await? else { bail!("the watch ended") };
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if phase == Some("Running") {
                self.running.entry(pod.name_any()).or_insert_with(Timestamp::now);
            }
        }
        self.running.remove(name).context("just seen")
    }
}

/// When the agent saw the pod first: its record says so.
fn first_seen(record: &Path) -> Result<Timestamp> {
    let record: Value = serde_json::from_slice(&fs::read(record)?)?;
    let moment = record.get("start_time").and_then(Value::as_str).context("start_time")?;
    Ok(moment.parse()?)
}

/// The time that a log's first line tells.
async fn first_line(log: &Path) -> Result<Timestamp> {
    let look = async {
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                return line.split(' ').next().context("a log line")?.parse().context("its time");
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.with_context(|| log.display().to_string())?
}

/// A sandbox of its own, ended when dropped.
struct Bare {
    child: Child,
    _folder: TempDir,
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Starts the sandbox with the orders that lie in the state folder `container`, and no agent; seconds from before the exec to its first log line.
async fn bare_start(container: &Path) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("0.log");
    let mut orders = State::new(container).container()?;
    orders.log.path.clone_from(&log);
    // That of the pod whose orders these were may be gone.
    orders.cgroup = None;
    let state = State::new(folder.path());
    state.create(orders.user.as_ref())?;
    state.write_container(&orders)?;
    let listener = UnixListener::bind(folder.path().join("socket"))?;
    let mut command = Command::new(paths::program("nodule-sandbox")?);
    command.arg("run").arg("--state").arg(folder.path()).env_clear();
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    let before = Timestamp::now();
    let bare = Bare { child: command.spawn()?, _folder: folder };
    let after = first_line(&log).await;
    drop(bare);
    Ok(after?.duration_since(before).as_secs_f64())
}

fn report(spans: &mut [(&str, Vec<f64>)]) {
    let millis = |seconds: &f64| seconds * 1000.0;
    let base = spans.last_mut().map_or(1.0, |(_, times)| millis(&quantile(times, 0.5)));
    answer(format!("{:45} {:>9} {:>9} {:>9} {:>7}", "ms", "min", "p50", "p99", "ratio"));
    for (what, times) in spans {
        let [min, p50, p99] = [0.0, 0.5, 0.99].map(|part| millis(&quantile(times, part)));
        answer(format!("{what:45} {min:9.2} {p50:9.2} {p99:9.2} {:7.1}", p50 / base));
    }
}
