//! kubectl, as a user calls it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// kubectl of the pinned version with the kubeconfig of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// This program with this kubeconfig.
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned() }
    }

    /// The command with these arguments, to be run as one likes.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).stdin(Stdio::null());
        command
    }

    /// What it prints; where it fails, what it complains of.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("start kubectl")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            complaint.trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with the terminal as its output.
    pub fn show(&self, arguments: &[&str]) -> Result<()> {
        let status = self.command(arguments).status().context("start kubectl")?;
        ensure!(status.success(), "kubectl {}: {status}", arguments.join(" "));
        Ok(())
    }

    /// Applies a manifest.
    pub fn apply(&self, namespace: &str, manifest: &str) -> Result<()> {
        let mut command = self.command(&["apply", "--namespace", namespace, "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        child.stdin.take().context("kubectl's input is a pipe")?.write_all(manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }
}
