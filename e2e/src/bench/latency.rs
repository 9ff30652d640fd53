//! How long a container takes to its first line.

use anyhow::Result;
use jiff::Timestamp;

use super::container::{Sandboxes, Way};
use super::program::Sized;
use super::stats::quantile;
use super::table::{Table, millis};

/// How many starts are measured of each kind.
const STARTS: usize = 200;

/// The starts of one kind, in milliseconds.
pub(super) struct Latency {
    program: String,
    way: Way,
    /// Order to first line.
    total: Vec<f64>,
    /// Of that: the agent's files and socket.
    files: Vec<f64>,
    /// Of that: until there is a process.
    process: Vec<f64>,
    /// Of that: what the process does until its guest has written.
    inside: Vec<f64>,
}

impl Latency {
    pub(super) fn label(&self) -> String {
        format!("{}, {}", self.program, if self.way == Way::Fork { "fork" } else { "exec" })
    }

    /// The medians of the parts that [`PARTS`] names.
    pub(super) fn parts(&mut self) -> [f64; 3] {
        self.parts_at(0.5)
    }

    fn parts_at(&mut self, part: f64) -> [f64; 3] {
        [&mut self.files, &mut self.process, &mut self.inside].map(|times| quantile(times, part))
    }

    async fn start(&mut self, sandboxes: &Sandboxes, program: &Sized) -> Result<()> {
        let mut pod = sandboxes.start(&program.guest, self.way)?;
        pod.attend()?;
        let line = pod.first_line().await?;
        self.total.push(span(pod.ordered, line));
        self.files.push(span(pod.ordered, pod.written));
        self.process.push(span(pod.written, pod.forked));
        self.inside.push(span(pod.forked, line));
        Ok(())
    }
}

/// What a start is made of.
pub(super) const PARTS: [&str; 3] = ["agent's files", "process", "jail, load, guest"];

/// Measures every program by fork and by exec, in turns.
pub(super) async fn measure(sandboxes: &Sandboxes, programs: &[Sized]) -> Result<Vec<Latency>> {
    let empty = |(program, way): (&Sized, Way)| Latency {
        program: program.name.clone(),
        way,
        total: Vec::new(),
        files: Vec::new(),
        process: Vec::new(),
        inside: Vec::new(),
    };
    let kinds: Vec<_> =
        programs.iter().flat_map(|program| [(program, Way::Fork), (program, Way::Exec)]).collect();
    let mut all: Vec<_> = kinds.iter().copied().map(empty).collect();
    for _ in 0..STARTS {
        for (latency, (program, _)) in all.iter_mut().zip(&kinds) {
            latency.start(sandboxes, program).await?;
        }
    }
    Ok(all)
}

/// Milliseconds.
fn span(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

pub(super) fn table(all: &mut [Latency], place: &str) -> Table {
    let title = format!(
        "Order → first log line, ms, 200 starts of each, folders on {place} (target: p50 at most 5)"
    );
    let head = [
        "",
        "p50",
        "p99",
        "min",
        "files p50",
        "process p50",
        "inside p50",
        "files p99",
        "process p99",
        "inside p99",
    ];
    let mut table = Table::new(&title, &head);
    for latency in all {
        let total = [0.5, 0.99, 0.0].map(|part| quantile(&mut latency.total, part));
        let mut row = vec![latency.label()];
        let parts = latency.parts().into_iter().chain(latency.parts_at(0.99));
        row.extend(total.into_iter().chain(parts).map(millis));
        table.row(row);
    }
    table
}
