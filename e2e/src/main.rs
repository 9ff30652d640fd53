//! `nodule-e2e`: sets up and runs what the tests and the demo need. `just` is how it is called.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use nodule_e2e::cluster::{self, Cluster};
use nodule_e2e::layout::{Layout, State, Wanted};
use nodule_e2e::terminal::{answer, say};
use nodule_e2e::{bench, binaries, control, demo, paths, supervisor};

/// Sets up and runs what nodule's tests and demo need.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the control plane and the registry into the cache.
    Setup,
    /// Starts, ends and describes a control plane with a registry.
    ControlPlane {
        #[command(subcommand)]
        action: Action,
    },
    /// Starts and ends a cluster with one node to play with.
    Demo {
        #[command(subcommand)]
        action: DemoAction,
    },
    /// Measures what pods cost.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Runs a command with a cluster for tests, and ends that after it.
    Run {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Runs a control plane as long as it is wanted (called by the others).
    #[command(hide = true)]
    Supervise(supervisor::Orders),
}

#[derive(Subcommand)]
enum Bench {
    /// What a pod's start costs in a cluster, beside a bare start of the sandbox.
    Start,
    /// What an agent needs for up to a thousand idle pods.
    Crowd,
    /// What images cost on their way to the node, beside skopeo and containerd.
    Image,
    /// What containers cost without agent and cluster: starts, memory, wake-ups, speed.
    Sandbox(bench::sandbox::Options),
}

#[derive(Subcommand)]
enum DemoAction {
    /// Starts it, or what of it does not run.
    Up,
    /// Ends it and removes what it kept.
    Down,
}

#[derive(Subcommand)]
enum Action {
    /// Starts it, unless it runs.
    Up,
    /// Ends it and removes all that it kept.
    Down,
    /// Says whether it runs, and where.
    Status,
    /// Prints the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Stops one program, such as kube-apiserver.
    Stop {
        /// The program.
        name: String,
    },
    /// Starts a stopped program again and waits until it is ready.
    Start {
        /// The program.
        name: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => binaries::Binaries::build().map(drop),
        Command::ControlPlane { action } => control_plane(&action),
        Command::Demo { action: DemoAction::Up } => demo::up().await,
        Command::Demo { action: DemoAction::Down } => demo::down(),
        Command::Bench { what: Bench::Start } => bench::start::run().await,
        Command::Bench { what: Bench::Crowd } => bench::crowd::run().await,
        Command::Bench { what: Bench::Image } => bench::image::run().await,
        Command::Bench { what: Bench::Sandbox(options) } => bench::sandbox::run(&options).await,
        Command::Run { command } => with_cluster(&command).await,
        Command::Supervise(orders) => supervisor::run(orders).await,
    }
}

async fn with_cluster(command: &[String]) -> Result<()> {
    let cluster = Cluster::start().await?;
    let (program, arguments) = command.split_first().context("a command")?;
    let mut command = std::process::Command::new(program);
    let status = command.args(arguments).env(cluster::FOLDER, cluster.folder()).status();
    let status = status.with_context(|| format!("start {program}"))?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

fn control_plane(action: &Action) -> Result<()> {
    let layout = Layout::new(paths::control_plane()?);
    match action {
        Action::Up => up(&layout),
        Action::Down => {
            let ended = control::down(&layout)?;
            say(if ended { "control plane ended" } else { "no control plane was running" });
            Ok(())
        }
        Action::Status => {
            let state = layout
                .state()
                .context("no control plane is running: `just control-plane up` starts one")?;
            describe(&layout, &state);
            Ok(())
        }
        Action::Kubeconfig => {
            layout
                .state()
                .context("no control plane is running: `just control-plane up` starts one")?;
            answer(layout.kubeconfig().display().to_string());
            Ok(())
        }
        Action::Stop { name } => control::order(&layout, "stop", name),
        Action::Start { name } => control::order(&layout, "start", name),
    }
}

fn up(layout: &Layout) -> Result<()> {
    binaries::Binaries::build()?;
    let wanted =
        Wanted { cluster: true, registry: true, private_registry: false, registry_port: None };
    let state = control::up(layout, wanted)?;
    describe(layout, &state);
    Ok(())
}

fn describe(layout: &Layout, state: &State) {
    answer(format!(
        "control plane   https://127.0.0.1:{} (process {})",
        state.ports.api, state.supervisor.pid
    ));
    answer(format!("kubeconfig      {}", layout.kubeconfig().display()));
    answer(format!("registry        127.0.0.1:{} (plain HTTP)", state.ports.registry));
    answer(format!("logs            {}", layout.folder().join("logs").display()));
}
