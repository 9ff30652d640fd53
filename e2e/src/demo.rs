//! `just demo`: a cluster with one WebAssembly node on this machine, to look at and to play with.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rustix::process::Signal;
use serde_json::json;

use crate::binaries::Binaries;
use crate::credentials::Credentials;
use crate::kubectl::Kubectl;
use crate::layout::{Layout, State, Wanted, api_server};
use crate::mounts;
use crate::node::{Node, Plan};
use crate::push::Registry;
use crate::supervisor::NODE_PROGRAMS;
use crate::terminal::{answer, say};
use crate::{access, control, paths, process, status, wait};

/// The node's name.
const NODE: &str = "wasm-1";
/// The registry's port in `manifests/examples`, taken if it is free.
const REGISTRY_PORT: u16 = 5000;
/// What the examples say where the registry is.
const REGISTRY_IN_EXAMPLES: &str = "127.0.0.1:5000";
/// How many lines of the pod's log are followed.
const LINES: usize = 5;
/// All that the demo keeps in its folder.
const CONTENT: [&str; 8] = [
    "control-plane",
    "control-plane.lock",
    "node",
    "bin",
    "kubeconfig",
    "registry",
    "agent",
    "agent.pid",
];

/// The demo's folder.
struct Demo {
    folder: PathBuf,
    layout: Layout,
}

/// Starts the demo, or what of it does not run, and shows it.
pub async fn up() -> Result<()> {
    let demo = Demo::new()?;
    let binaries = Binaries::find()?;
    let programs = NODE_PROGRAMS.map(|name| paths::program(name).map(|path| (name, path)));
    let state = demo.control_plane()?;
    demo.link(&binaries, programs)?;
    let kubectl = Kubectl::new(binaries.path("kubectl")?, &demo.file("kubeconfig"));
    let registry = format!("127.0.0.1:{}", state.ports.registry);
    say("demo: pushing examples/probe:p1, :p2 and :krustlet");
    Registry { host: registry.clone(), login: None, storage: None }.push_probe().await?;
    demo.agent(&state, &registry)?;
    demo.ready(&kubectl, &registry).await?;
    show(&kubectl)?;
    demo.suggest();
    Ok(())
}

/// Ends whatever of the demo runs and removes what it kept.
pub fn down() -> Result<()> {
    let demo = Demo::new()?;
    let node = demo.end_node()?;
    let cluster = control::down(&demo.layout)?;
    for name in CONTENT.iter().chain(&["agent.log"]) {
        remove(&demo.file(name))?;
    }
    // Stays where somebody else put something into it.
    let _kept = fs::remove_dir(&demo.folder);
    say(if node || cluster { "demo ended" } else { "no demo was running" });
    Ok(())
}

impl Demo {
    fn new() -> Result<Self> {
        let folder = paths::demo()?;
        Ok(Self { layout: Layout::new(folder.join("control-plane")), folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new control plane knows nothing of the node and the pods of the one before.
    fn control_plane(&self) -> Result<State> {
        if self.layout.state().is_none() {
            self.end_node()?;
            for name in CONTENT {
                remove(&self.file(name))?;
            }
        }
        say("demo: starting etcd, API server, controller-manager, scheduler and registry");
        let wanted = Wanted {
            cluster: true,
            registry: true,
            private_registry: false,
            registry_port: Some(REGISTRY_PORT),
        };
        let state = control::up(&self.layout, wanted)?;
        fs::copy(self.layout.kubeconfig(), self.file("kubeconfig"))?;
        fs::write(self.file("registry"), format!("127.0.0.1:{}\n", state.ports.registry))?;
        Ok(state)
    }

    fn link(&self, binaries: &Binaries, programs: [Result<(&str, PathBuf)>; 3]) -> Result<()> {
        let folder = self.file("bin");
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        for (name, path) in binaries.iter() {
            symlink(path, folder.join(name))?;
        }
        for program in programs {
            let (name, path) = program?;
            symlink(path, folder.join(name))?;
        }
        Ok(())
    }

    /// Makes the node and starts its agent by the script that its user has too.
    fn agent(&self, state: &State, registry: &str) -> Result<()> {
        if !process::inside(&self.folder, &["nodule"]).is_empty() {
            say("demo: the agent runs already");
            return Ok(());
        }
        say("demo: starting the agent");
        let script = self.file("agent");
        if !script.exists() {
            let credentials = Credentials::sign(&self.layout.authority()?, NODE)?;
            let plain_http = [registry.to_owned(), registry.replace("127.0.0.1", "localhost")];
            let server = api_server(state.ports);
            let plan = Plan {
                name: NODE,
                server: &server,
                credentials: &credentials,
                plain_http: &plain_http,
                configuration: "",
                kubelet: &json!({}),
                max_pods: 250,
            };
            let node = Node::prepare(&self.file("node"), &plan)?;
            runnable(&script, &self.script(&node))?;
        }
        let status =
            Command::new(&script).stdin(Stdio::null()).status().context("run the agent script")?;
        ensure!(status.success(), "{}: {status}", script.display());
        Ok(())
    }

    fn script(&self, node: &Node) -> String {
        let mut arguments = String::new();
        for argument in node.arguments() {
            let _infallible = write!(arguments, " \\\n  {}", quote(&argument));
        }
        format!(
            "#!/bin/sh
# Starts the demo's agent in the background, unless it runs. Its process id is in agent.pid, what it says in agent.log.
set -eu
cd {}
runs() {{
  [ -e agent.pid ] && grep -qsF -- {} \"/proc/$(cat agent.pid)/cmdline\"
}}
# One that was just killed is still seen for a moment.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  runs || break
  sleep 0.1
done
if runs; then
  echo \"the agent runs already, process $(cat agent.pid)\"
  exit 0
fi
setsid bin/nodule{arguments} </dev/null >>agent.log 2>&1 &
echo $! >agent.pid
",
            quote(&self.folder.display().to_string()),
            quote(&node.folder().display().to_string()),
        )
    }

    async fn ready(&self, kubectl: &Kubectl, registry: &str) -> Result<()> {
        let client = access::client(&self.file("kubeconfig")).await?;
        let ready = wait::node_ready(client.clone(), NODE).await;
        ready.with_context(|| {
            format!("the agent says why in {}", self.file("agent.log").display())
        })?;
        kubectl.apply("default", include_str!("../../manifests/runtimeclass.yaml"))?;
        let hello = include_str!("../../manifests/examples/hello.yaml");
        kubectl.apply("default", &hello.replace(REGISTRY_IN_EXAMPLES, registry))?;
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let running = wait::until(pods, wait::named("hello"), "pod hello to run", |found| {
            found.iter().any(|pod| status::phase(pod) == "Running")
        });
        if let Err(error) = running.await {
            kubectl.show(&["describe", "pod", "hello"])?;
            return Err(error);
        }
        Ok(())
    }

    fn suggest(&self) {
        let folder = quote(&self.folder.display().to_string());
        answer(format!(
            "
The demo runs on. Try next:

  export D={folder}
  export KUBECONFIG=$D/kubeconfig PATH=$D/bin:$PATH

  kubectl logs -f hello            # what the program prints
  kubectl get events               # what the node did
  kubectl run again --image $(cat $D/registry)/examples/probe:p2 --restart=Never \\
    --overrides '{{\"spec\":{{\"runtimeClassName\":\"nodule\"}}}}' -- show
  kill -9 $(cat $D/agent.pid)      # pods run on without their agent,
  $D/agent                         # and the next one takes them over
  nodule image push --plain-http FILE.wasm $(cat $D/registry)/me/program:1

`e2e/just demo-down` ends it all.

The registry is at {} (plain HTTP).",
            fs::read_to_string(self.file("registry")).unwrap_or_default().trim_end()
        ));
    }

    /// The agent, then its pods' processes, which outlive it on purpose.
    fn end_node(&self) -> Result<bool> {
        let agents = process::inside(&self.folder, &["nodule"]);
        for agent in &agents {
            agent.end(Signal::TERM, Duration::from_secs(10))?;
        }
        let left = process::inside(&self.folder, &NODE_PROGRAMS);
        process::kill(&left)?;
        Ok(!agents.is_empty() || !left.is_empty())
    }
}

fn show(kubectl: &Kubectl) -> Result<()> {
    for command in [&["get", "nodes", "-o", "wide"][..], &["get", "pods", "-o", "wide"]] {
        answer(format!("\n$ kubectl {}", command.join(" ")));
        kubectl.show(command)?;
    }
    follow(kubectl)?;
    answer("\n$ kubectl describe pod hello");
    kubectl.show(&["describe", "pod", "hello"])
}

/// The first lines of the log as they come.
fn follow(kubectl: &Kubectl) -> Result<()> {
    answer("\n$ kubectl logs -f hello");
    let mut child = kubectl.command(&["logs", "-f", "hello"]).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("kubectl's output is a pipe")?;
    for line in BufReader::new(output).lines().take(LINES) {
        answer(line?);
    }
    child.kill()?;
    child.wait()?;
    answer("^C");
    Ok(())
}

fn runnable(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        mounts::release(path)?;
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
