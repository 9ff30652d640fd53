//! `nodule-e2e`: sets up and runs what the tests and the demo need. `just` is how it is called.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nodule_e2e::layout::{Layout, State, Wanted};
use nodule_e2e::terminal::{answer, say};
use nodule_e2e::{binaries, control, paths, supervisor};

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
    /// Runs a control plane as long as it is wanted (called by the others).
    #[command(hide = true)]
    Supervise(supervisor::Orders),
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
async fn main() -> Result<()> {
    // Both HTTP clients take what is installed here; the registry's has no default.
    let _already = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Setup => binaries::Binaries::build().map(drop),
        Command::ControlPlane { action } => control_plane(&action),
        Command::Supervise(orders) => supervisor::run(orders).await,
    }
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
