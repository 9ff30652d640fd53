//! `nodule`: a Kubernetes node agent that runs WebAssembly.
//!
//! `cli.rs` has the flags, `config.rs` makes of them and of the configuration file what each crate needs, `agent.rs`
//! ties the crates together, and `supervisor.rs` holds their tasks: the Node and its Lease, the HTTPS API, `/healthz`,
//! the pods, and the list of images.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Parser;

mod agent;
mod cli;
mod client;
mod collection;
mod config;
mod host;
mod image;
mod inventory;
mod local;
mod lock;
mod pressure;
mod rate;
mod shutdown;
mod statics;
mod supervisor;
mod telemetry;
mod tended;
mod terminal;

use crate::{
    cli::Arguments,
    config::{File, Settings},
    host::Host,
    local::{COMMANDS, Local},
};

/// Nothing here computes: two threads keep one that is held up from holding up all.
const THREADS: usize = 2;

/// A usage error ends with 2, as clap has it; any other with 1 and one line that names causes, too.
fn main() -> ExitCode {
    let result = match std::env::args_os().nth(1) {
        Some(word) if COMMANDS.iter().any(|command| word == *command) => alone(Local::parse()),
        _ => start(Arguments::parse()).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        // Nothing is left to tell if standard error is gone.
        let _ = writeln!(io::stderr(), "nodule: {error:#}");
        ExitCode::FAILURE
    })
}

/// Without a cluster.
fn alone(local: Local) -> Result<ExitCode> {
    within(local::main(local))
}

fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("another TLS provider was installed first");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(work);
    // Not waiting for threads that are held up by a disk.
    runtime.shutdown_background();
    result
}

fn start(arguments: Arguments) -> Result<()> {
    let file = arguments.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    let settings = Settings::new(arguments, file, &Host::look()?)?;
    telemetry::start(settings.log)?;
    within(agent::run(settings))
}
