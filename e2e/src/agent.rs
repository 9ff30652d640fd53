//! One agent under test: its own node, its own folder, and every way to end it.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kubectl::Kubectl;
use crate::node::{Node, Plan};
use crate::process::{self, Process};
use crate::supervisor::NODE_PROGRAMS;
use crate::{paths, wait};

/// The program of a zygote and of containers, and a zygote's name in the process list.
const SANDBOX: &str = "nodule-sandbox";

/// How long an agent may take to end when it is asked to.
const END: Duration = Duration::from_secs(30);

/// What a test wants of its agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most pods of the node.
    pub max_pods: u32,
    /// More lines of NoduleConfiguration.
    pub configuration: String,
    /// Fields of KubeletConfiguration, in the place of what tests have else.
    pub kubelet: Value,
    /// More of the agent's environment.
    pub variables: Vec<(&'static str, String)>,
    /// No other test runs beside it: it measures, or it takes the whole machine.
    pub alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pods: 110,
            configuration: String::new(),
            kubelet: json!({}),
            variables: Vec::new(),
            alone: false,
        }
    }
}

/// An agent and its node. Dropping it ends the agent and its pods' processes and removes the node.
pub struct Agent {
    node: Node,
    child: Option<Child>,
    kubectl: Kubectl,
    variables: Vec<(&'static str, String)>,
}

impl Agent {
    /// Starts an agent on a new node and waits until that is Ready.
    pub async fn start(
        cluster: &Cluster,
        client: Client,
        name: &str,
        options: &Options,
    ) -> Result<Self> {
        let credentials = cluster.credentials(name).await?;
        let plain_http = [cluster.registry().host.clone(), cluster.private_registry().host.clone()];
        let plan = Plan {
            name,
            server: &cluster.server()?,
            credentials: &credentials,
            plain_http: &plain_http,
            configuration: &options.configuration,
            kubelet: &options.kubelet,
            max_pods: options.max_pods,
        };
        let node = Node::prepare(&cluster.node_folder(name)?, &plan)?;
        let kubectl = cluster.kubectl().clone();
        let mut agent = Self { node, child: None, kubectl, variables: options.variables.clone() };
        agent.start_again()?;
        let ready = wait::node_ready(client, name).await;
        ready.with_context(|| format!("the agent's log:\n{}", agent.log()))?;
        Ok(agent)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// Starts the agent as it was started first; returns at once.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_with(None)
    }

    /// The same; but it dies at the `step`th of the places where a crash may leave something half done.
    pub fn start_to_crash(&mut self, step: u32) -> Result<()> {
        self.start_with(Some(step))
    }

    /// Whether it has died by itself. If so, it can be started again.
    pub fn has_crashed(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { return Ok(true) };
        let Some(status) = child.try_wait()? else { return Ok(false) };
        self.child = None;
        ensure!(status.signal() == Some(Signal::KILL.as_raw()), "the agent has ended: {status}");
        Ok(true)
    }

    fn start_with(&mut self, crash: Option<u32>) -> Result<()> {
        ensure!(self.child.is_none(), "the agent runs");
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(paths::program("nodule")?);
        command
            .args(self.node.arguments())
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(step) = crash {
            command.env("NODULE_CRASH_AT", step.to_string());
        }
        // Ctrl-C ends the test, which ends the agent.
        command.process_group(0);
        self.child = Some(command.spawn().context("start the agent")?);
        Ok(())
    }

    /// Ends the agent as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        let status = self.end(Signal::KILL)?;
        ensure!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "the agent had ended before: {status}"
        );
        Ok(())
    }

    /// Asks the agent to end, waits for it and says how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end(Signal::TERM)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the agent does not run")?;
        if let Some(process) = Process::of(child.id())
            && !process.end(signal, END)?
        {
            child.kill()?;
            anyhow::bail!(
                "the agent did not end within {} s of signal {}",
                END.as_secs(),
                signal.as_raw()
            );
        }
        Ok(child.wait()?)
    }

    /// All that the agent said, over all its starts.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The agent's own memory in bytes: what it has of no file. The code of a debug build would be more than all else.
    pub fn memory(&self) -> Result<u64> {
        self.memory_of("RssAnon:")
    }

    /// All of the agent's memory in bytes, its code with it.
    pub fn resident(&self) -> Result<u64> {
        self.memory_of("VmRSS:")
    }

    /// The most that [`Self::resident`] has been since [`Self::forget_peak`].
    pub fn peak(&self) -> Result<u64> {
        self.memory_of("VmHWM:")
    }

    /// Begins the peak anew (proc_pid_clear_refs(5)).
    pub fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid()?), "5")?)
    }

    fn memory_of(&self, kind: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(kind));
        let kib: u64 = line.context("no such memory")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// The agent's process while it runs.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the agent does not run")?.id())
    }

    /// The processes of the node's containers.
    pub fn sandboxes(&self) -> Vec<Process> {
        process::named(self.programs(), SANDBOX, false)
    }

    /// The agent's zygote, while it has one.
    pub fn zygote(&self) -> Option<Process> {
        process::named(self.programs(), SANDBOX, true).pop()
    }

    fn programs(&self) -> Vec<Process> {
        process::inside(self.node.folder(), &[SANDBOX])
    }

    /// A file or folder of the node: `root`, `run`, `pod-logs` and what is in them.
    pub fn file(&self, name: &str) -> PathBuf {
        self.node.file(name)
    }

    fn log_path(&self) -> PathBuf {
        self.node.file("agent.log")
    }
}

impl Drop for Agent {
    /// What fails here fails no test: the run's end kills what is left in its folder.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        let _killed = process::kill(&process::inside(self.node.folder(), &NODE_PROGRAMS));
        let name = self.node.name().to_owned();
        let _removed =
            self.kubectl.run(&["delete", "node", &name, "--ignore-not-found", "--wait=false"]);
    }
}
