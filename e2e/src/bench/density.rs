//! What many idle containers hold, and do.

use std::time::Duration;

use anyhow::Result;
use tokio::task::yield_now;

use super::compiler::compile;
use super::container::{Guest, Running, Sandboxes, Way};
use super::idle;
use super::meter::{Group, Kernel, Memory};
use super::program::Sized;
use super::table::{Table, kib};
use crate::paths;

/// How many there are at once.
const COUNTS: [usize; 2] = [100, 1000];
/// Until the kernel has given back what the last ones had, and the new ones are quiet.
const SETTLE: Duration = Duration::from_secs(3);

/// The means of one container.
pub(super) struct Density {
    label: String,
    memory: Memory,
    kernel: Kernel,
    /// The kernel's memory by the cgroup, where there is one.
    group: Option<f64>,
    wakeups: f64,
    /// The zygote with all of these forks.
    zygote: Memory,
}

impl Density {
    /// What of it is the kernel's: as the cgroup counts, which nothing else on the machine disturbs.
    fn held(&self) -> f64 {
        self.group.unwrap_or_else(|| self.kernel.held())
    }

    /// User and kernel.
    fn total(&self) -> f64 {
        self.memory.pss + self.held()
    }

    pub(super) fn label(&self) -> String {
        self.label.clone()
    }

    /// What [`PARTS`] names.
    pub(super) fn parts(&self) -> Vec<f64> {
        let (memory, tables, stacks) = (self.memory, self.kernel.page_tables, self.kernel.stacks);
        let rest = self.held() - tables - stacks;
        vec![memory.private, memory.pss - memory.private, tables, stacks, rest]
    }
}

/// Where the bytes are.
pub(super) const PARTS: [&str; 5] =
    ["private", "part of what is shared", "page tables", "kernel stacks", "other kernel"];

/// Measures the small program and the middle one, and what fewer pods of the large one hold.
pub(super) async fn measure(programs: &[Sized]) -> Result<Vec<Density>> {
    let sandboxes = Sandboxes::counted()?;
    let mut all = Vec::new();
    for program in programs.iter().take(2) {
        for count in COUNTS {
            all.push(one(&sandboxes, program, count).await?);
        }
    }
    for large in programs.iter().skip(2) {
        all.push(one(&sandboxes, large, COUNTS[0]).await?);
    }
    Ok(all)
}

async fn one(sandboxes: &Sandboxes, program: &Sized, count: usize) -> Result<Density> {
    let group = || sandboxes.group.as_ref().and_then(Group::kernel);
    // The first one touches what the others share.
    drop(start(sandboxes, &program.guest, 1).await?);
    tokio::time::sleep(SETTLE).await;
    let before = (Kernel::now()?, group());
    let pods = start(sandboxes, &program.guest, count).await?;
    tokio::time::sleep(SETTLE).await;
    let after = (Kernel::now()?, group());
    #[expect(clippy::cast_precision_loss, reason = "a count of containers")]
    let number = count as f64;
    Ok(Density {
        label: format!("{count} pods, {}", program.name),
        memory: mean(&pods, number)?,
        kernel: after.0.each(before.0, number),
        group: after.1.zip(before.1).map(|(after, before)| (after - before) / number),
        wakeups: idle::wakeups(&pods).await?,
        zygote: Memory::of(sandboxes.zygote.pid())?,
    })
}

/// So many, all with an agent's connection, all past their first line.
async fn start(sandboxes: &Sandboxes, guest: &Guest, count: usize) -> Result<Vec<Running>> {
    let mut pods = Vec::with_capacity(count);
    for _ in 0..count {
        let mut pod = sandboxes.start(guest, Way::Fork)?;
        pod.attend()?;
        pods.push(pod);
        yield_now().await;
    }
    for pod in &pods {
        pod.first_line().await?;
    }
    Ok(pods)
}

fn mean(pods: &[Running], number: f64) -> Result<Memory> {
    let mut sum = Memory::default();
    for pod in pods {
        let memory = Memory::of(pod.pid)?;
        sum.pss += memory.pss;
        sum.private += memory.private;
    }
    Ok(Memory { pss: sum.pss / number, private: sum.private / number })
}

/// Memory.
pub(super) fn table(all: &[Density]) -> Table {
    let title =
        "Memory of an idle pod of one container, KiB (targets at 1,000: 614, and 819 at 3 MB)";
    let head = [
        "",
        "total",
        "private",
        "PSS",
        "kernel",
        "stacks",
        "tables",
        "slab",
        "other",
        "(caches)",
        "(available)",
        "zygote's PSS",
    ];
    let mut table = Table::new(title, &head);
    for density in all {
        let (memory, kernel) = (density.memory, density.kernel);
        let own = [density.total(), memory.private, memory.pss, density.held()];
        let parts = [kernel.stacks, kernel.page_tables, kernel.slab, kernel.other];
        let more = [kernel.caches, kernel.available, density.zygote.pss];
        let numbers = own.into_iter().chain(parts).chain(more).map(kib);
        table.row([density.label()].into_iter().chain(numbers).collect());
    }
    table
}

/// Wake-ups, beside those of containers that are not idle: it shows that they are seen.
pub(super) async fn wakeups(all: &[Density]) -> Result<Table> {
    let title =
        "Context switches of an idle pod per second, all threads, over 10 s (target: below 0.1)";
    let mut table = Table::new(title, &["", "per pod and second"]);
    for density in all {
        table.row(vec![density.label(), format!("{:.3}", density.wakeups)]);
    }
    let busy = busy().await?;
    table.row(vec!["not idle: 10 pods, 10 lines a second".to_owned(), format!("{busy:.3}")]);
    Ok(table)
}

async fn busy() -> Result<f64> {
    let sandboxes = Sandboxes::new()?;
    let guest = Guest {
        program: compile(&paths::guest("probe.p1.wasm")?, sandboxes.folder())?,
        args: ["probe", "lines", "0", "100"].map(str::to_owned).to_vec(),
        mounts: Vec::new(),
        http: None,
    };
    idle::wakeups(&start(&sandboxes, &guest, 10).await?).await
}
