//! The process that runs a control plane: it starts every program, ends them all when it is told to or when whoever
//! wanted them is gone, and leaves nothing behind.

use std::fs;
use std::path::PathBuf;
use std::pin::pin;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::Binaries;
use crate::layout::{Layout, State, Wanted};
use crate::mounts;
use crate::parts::{Part, parts};
use crate::process::{self, Process};
use crate::terminal::answer;
use crate::{access, control};

/// What the supervisor says on standard output once all is ready.
pub const READY: &str = "ready";
/// Programs of a node, which outlive their parents on purpose.
pub const NODE_PROGRAMS: [&str; 3] = ["nodule", "nodule-sandbox", "nodule-compile"];

/// What one supervisor does.
#[derive(Debug, Clone, clap::Args)]
pub struct Orders {
    /// The control plane's folder.
    #[arg(long)]
    pub folder: PathBuf,
    /// Ends when standard input does: when whoever holds its other end is gone.
    #[arg(long)]
    pub lifeline: bool,
    /// At the end also ends the node programs that work in this folder, and removes it.
    #[arg(long)]
    pub guard: Option<PathBuf>,
    /// What to start.
    #[command(flatten)]
    pub wanted: Wanted,
}

struct Running {
    part: Part,
    child: Option<Child>,
}

/// Runs a control plane until it is told to end. The programs die with this process: call it on the main thread of a
/// single-threaded runtime, since the kernel watches the thread that started them.
pub async fn run(orders: Orders) -> Result<()> {
    let layout = Layout::new(&orders.folder);
    let result = supervise(&layout, &orders).await;
    if let Some(folder) = &orders.guard {
        process::kill(&process::inside(folder, &NODE_PROGRAMS))?;
        remove(folder)?;
    }
    remove(layout.folder())?;
    result
}

fn remove(folder: &std::path::Path) -> Result<()> {
    mounts::release(folder)?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn supervise(layout: &Layout, orders: &Orders) -> Result<()> {
    let mut end = pin!(told_to_end(orders.lifeline)?);
    let mut running = Vec::new();
    let started = tokio::select! {
        started = start(layout, orders.wanted, &mut running) => started,
        () = &mut end => Ok(()),
    };
    if started.is_ok() {
        tokio::select! {
            result = serve(layout, &mut running) => result?,
            () = &mut end => {}
        }
    }
    stop_all(&mut running).await;
    started
}

async fn start(layout: &Layout, wanted: Wanted, running: &mut Vec<Running>) -> Result<()> {
    let binaries = Binaries::find()?;
    let ports = layout.prepare(wanted)?;
    for part in parts(layout, &binaries, ports, wanted)? {
        let child = part.start().await?;
        running.push(Running { part, child: Some(child) });
    }
    if wanted.cluster {
        access::grant(&layout.kubeconfig()).await?;
    }
    let supervisor = Process::of(std::process::id()).context("this process")?;
    layout.write_state(&State { supervisor, wanted, ports })?;
    answer(READY);
    Ok(())
}

/// Last started, first ended: nothing complains of what it misses.
async fn stop_all(running: &mut [Running]) {
    for one in running.iter_mut().rev() {
        if let Some(mut child) = one.child.take() {
            // Fails only where it has ended already.
            let _ended = child.kill().await;
        }
    }
}

/// Completes when this process shall end: on SIGTERM, SIGINT, and if asked for at the end of standard input.
fn told_to_end(lifeline: bool) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The terminal may go: what `up` started stays.
    let hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        let _ignored = hang_up;
        let mut nothing = Vec::new();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = async { tokio::io::stdin().read_to_end(&mut nothing).await }, if lifeline => {}
        }
    })
}

async fn serve(layout: &Layout, running: &mut [Running]) -> Result<()> {
    let listener = control::address(layout, |path| UnixListener::bind(path))?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Who asks may go away; nothing is lost by it.
        let _gone = converse(stream, running).await;
    }
}

async fn converse(mut stream: UnixStream, running: &mut [Running]) -> Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match obey(&line, running).await {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{error:#}").replace('\n', "; "),
        };
        writer.write_all(format!("{reply}\n").as_bytes()).await?;
    }
    Ok(())
}

async fn obey(line: &str, running: &mut [Running]) -> Result<()> {
    let (order, name) = line.split_once(' ').context("an order names a program")?;
    let Some(one) = running.iter_mut().find(|one| one.part.name == name) else {
        bail!("no program {name} here")
    };
    match order {
        "stop" => {
            if let Some(mut child) = one.child.take() {
                child.kill().await?;
            }
        }
        "start" => {
            let ended = one
                .child
                .as_mut()
                .is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended {
                one.child = Some(one.part.start().await?);
            }
        }
        _ => bail!("no order {order}"),
    }
    Ok(())
}
