//! The sandbox alone, without an agent and a cluster: `just bench sandbox`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::container::{Sandboxes, Way};
use super::density::{self, Density};
use super::latency::{self, Latency};
use super::plot::Plot;
use super::table::Table;
use super::{burst, machine, program, serve, speed};
use crate::terminal::{answer, say};

/// A file system without a disk (shm_overview(7)): what is faster on it is what the disk's takes.
const IN_MEMORY: &str = "/dev/shm";

/// What to measure, and where pictures go.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The folder for `sandbox-start.svg` and `sandbox-memory.svg`.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// The parts of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Start,
    Burst,
    Density,
    Speed,
    Http,
}

/// Measures until it is told to end (SIGINT, SIGTERM): either way no container is left.
pub async fn run(options: &Options) -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = term.recv() => bail!("told to end"),
        done = measure(options) => done,
    }
}

/// Prints tables as they come, and again in Markdown.
async fn measure(options: &Options) -> Result<()> {
    open_many()?;
    let sandboxes = Sandboxes::new()?;
    say("bench: compiling programs of three sizes");
    let programs = program::all(sandboxes.folder())?;
    let missing = sandboxes.start(&programs[0].guest, Way::Fork)?.attend()?.missing;
    let machine = machine::describe(&missing);
    answer(format!("{machine}\n"));
    let mut tables = Vec::new();
    let mut show = |table: Table| {
        answer(table.text());
        tables.push(table.markdown());
    };
    if options.wants(Part::Start) {
        let mut all = latency::measure(&sandboxes, &programs).await?;
        show(latency::table(&mut all, "disk"));
        options.plot("sandbox-start.svg", || starts(&mut all))?;
        if Path::new(IN_MEMORY).is_dir() {
            let within = Sandboxes::within(Path::new(IN_MEMORY))?;
            show(latency::table(&mut latency::measure(&within, &programs).await?, "tmpfs"));
        }
    }
    if options.wants(Part::Burst) {
        show(burst::measure(&sandboxes, &programs).await?);
    }
    if options.wants(Part::Density) {
        let all = density::measure(&programs).await?;
        show(density::table(&all));
        show(density::wakeups(&all).await?);
        options.plot("sandbox-memory.svg", || memory(&all))?;
    }
    if options.wants(Part::Speed) {
        show(speed::measure(&sandboxes).await?);
    }
    if options.wants(Part::Http) {
        show(serve::measure(&sandboxes).await?);
    }
    answer(format!("In Markdown:\n\n{machine}; afterwards {}\n", machine::load()));
    tables.iter().for_each(answer);
    Ok(())
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn plot(&self, name: &str, svg: impl FnOnce() -> String) -> Result<()> {
        let Some(folder) = &self.plots else { return Ok(()) };
        let path = folder.join(name);
        fs::write(&path, svg()).with_context(|| format!("write {}", path.display()))
    }
}

/// Two descriptors for each of the containers, which are many.
fn open_many() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn starts(all: &mut [Latency]) -> String {
    let bars = all.iter_mut().map(|latency| (latency.label(), latency.parts().to_vec()));
    Plot {
        title: "Order → first log line, medians of the parts",
        unit: "ms",
        parts: &latency::PARTS,
        bars: bars.collect(),
        target: 5.0,
    }
    .svg()
}

fn memory(all: &[Density]) -> String {
    Plot {
        title: "Memory of an idle pod of one container",
        unit: "KiB",
        parts: &density::PARTS,
        bars: all.iter().map(|density| (density.label(), density.parts())).collect(),
        target: 614.0,
    }
    .svg()
}
