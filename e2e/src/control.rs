//! The other side of a supervisor: starting one, asking it for something, ending it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::layout::{Layout, State, Wanted};
use crate::paths;
use crate::supervisor::READY;

/// How long a supervisor may take to end its programs, which it kills.
const END: Duration = Duration::from_secs(60);

/// A supervisor that ends when this is dropped, or when this process dies.
pub struct Lifeline {
    child: Child,
    /// Open as long as the supervisor shall run.
    line: Option<ChildStdin>,
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        drop(self.line.take());
        // It was waited for already or it ends now; its own log says what went wrong.
        let _status = self.child.wait();
    }
}

/// Starts a control plane that lives until `Lifeline` is dropped, and at the latest as long as this process.
pub fn start(layout: &Layout, wanted: Wanted, guard: &Path) -> Result<Lifeline> {
    let mut command = supervisor(layout, wanted)?;
    command.arg("--lifeline").arg("--guard").arg(guard).stdin(Stdio::piped());
    let mut child = command.spawn().context("start the supervisor")?;
    let line = child.stdin.take();
    wait_until_ready(&mut child)?;
    Ok(Lifeline { child, line })
}

/// Starts a control plane that stays. One that runs already is left as it is.
pub fn up(layout: &Layout, wanted: Wanted) -> Result<State> {
    let _lock = lock(layout)?;
    if let Some(state) = layout.state() {
        ensure!(
            covers(state.wanted, wanted),
            "{} runs without some of what is wanted",
            layout.folder().display()
        );
        return Ok(state);
    }
    clear(layout)?;
    // Not this process's standard error: whoever reads that to its end would wait as long as the control plane runs.
    let mut said = tempfile::tempfile()?;
    let mut command = supervisor(layout, wanted)?;
    command.stdin(Stdio::null()).stderr(said.try_clone()?);
    let mut child = command.spawn().context("start the supervisor")?;
    wait_until_ready(&mut child).with_context(|| read_from_start(&mut said))?;
    layout.state().context("the supervisor ended as soon as it was ready")
}

/// Ends a control plane and removes its folder; false if there was none.
pub fn down(layout: &Layout) -> Result<bool> {
    let _lock = lock(layout)?;
    let state = layout.state();
    if let Some(state) = &state {
        let ended = state.supervisor.end(Signal::TERM, END)?;
        ensure!(ended, "the supervisor (process {}) does not end", state.supervisor.pid);
    }
    clear(layout)?;
    Ok(state.is_some())
}

/// Asks the supervisor to stop or start one program and waits until that is done.
pub fn order(layout: &Layout, order: &str, name: &str) -> Result<()> {
    let stream = address(layout, UnixStream::connect)?;
    writeln!(&stream, "{order} {name}")?;
    let mut reply = String::new();
    BufReader::new(&stream).read_line(&mut reply)?;
    match reply.trim_end() {
        "ok" => Ok(()),
        "" => bail!("the supervisor ended before it answered"),
        reason => bail!("{order} {name}: {reason}"),
    }
}

/// The control socket's path in a form that is short enough for any folder (108 bytes is the limit, unix(7)).
pub(crate) fn address<T>(
    layout: &Layout,
    using: impl FnOnce(String) -> std::io::Result<T>,
) -> Result<T> {
    let folder = fs::File::open(layout.folder())
        .with_context(|| format!("open {}", layout.folder().display()))?;
    let path = format!("/proc/self/fd/{}/control", folder.as_raw_fd());
    using(path).with_context(|| format!("control socket in {}", layout.folder().display()))
}

fn covers(running: Wanted, wanted: Wanted) -> bool {
    let pairs = [
        (running.cluster, wanted.cluster),
        (running.registry, wanted.registry),
        (running.private_registry, wanted.private_registry),
    ];
    pairs.iter().all(|(running, wanted)| *running || !*wanted)
}

/// One `up` or `down` of a folder at a time. The lock's file stays beside the folder, which comes and goes.
fn lock(layout: &Layout) -> Result<fs::File> {
    let path = layout.folder().with_extension("lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    let file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock()?;
    Ok(file)
}

/// What a supervisor that was killed left in the folder.
fn clear(layout: &Layout) -> Result<()> {
    if layout.folder().exists() {
        fs::remove_dir_all(layout.folder())
            .with_context(|| format!("remove {}", layout.folder().display()))?;
    }
    Ok(())
}

fn supervisor(layout: &Layout, wanted: Wanted) -> Result<Command> {
    let mut command = Command::new(paths::program("nodule-e2e")?);
    command.arg("supervise").arg("--folder").arg(layout.folder());
    let flags = [
        ("--cluster", wanted.cluster),
        ("--registry", wanted.registry),
        ("--private-registry", wanted.private_registry),
    ];
    command.args(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
    if let Some(port) = wanted.registry_port {
        command.arg(format!("--registry-port={port}"));
    }
    command.process_group(0).stdout(Stdio::piped());
    Ok(command)
}

fn read_from_start(file: &mut fs::File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.map_or_else(|error| error.to_string(), |_| text.trim_end().to_owned())
}

fn wait_until_ready(child: &mut Child) -> Result<()> {
    let mut line = String::new();
    let output = child.stdout.take().context("the supervisor's output is a pipe")?;
    BufReader::new(output).read_line(&mut line)?;
    if line.trim_end() == READY {
        return Ok(());
    }
    let status = child.wait()?;
    bail!("the control plane did not start ({status})")
}
