//! containerd with a store of its own, which pulls by `ctr`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::tools::Workshop;

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// Ended when dropped.
pub(super) struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    /// Starts one that keeps all it has in the workshop. Needs root, for the mounts.
    pub(super) async fn start(workshop: &Workshop) -> Result<Self> {
        let [root, state, socket, log] = ["root", "state", "socket", "log"]
            .map(|name| workshop.path(&format!("containerd-{name}")));
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n"
        );
        workshop.write("containerd.toml", config)?;
        let output = fs::File::create(log)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(workshop.path("containerd.toml")).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("start containerd")?;
        let containerd = Self { child, socket };
        let ready = tokio::time::timeout(PATIENCE, containerd.ready(workshop)).await;
        let said = || fs::read_to_string(workshop.path("containerd-log")).unwrap_or_default();
        ready.with_context(|| format!("containerd is not ready:\n{}", said()))?;
        Ok(containerd)
    }

    async fn ready(&self, workshop: &Workshop) {
        while self.ctr(workshop, &["version"]).is_err() {
            sleep(LOOK).await;
        }
    }

    /// Pulls and unpacks.
    pub(super) fn pull(&self, workshop: &Workshop, image: &str) -> Result<()> {
        self.ctr(workshop, &["image", "pull", "--plain-http", image])
    }

    fn ctr(&self, workshop: &Workshop, arguments: &[&str]) -> Result<()> {
        let address = self.socket.to_string_lossy();
        workshop.run("ctr", &[&["--address", &address], arguments].concat()).map(drop)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
