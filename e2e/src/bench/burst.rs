//! Many containers at once.

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::container::{Sandboxes, Way};
use super::program::Sized;
use super::table::{Table, millis};

/// How many: about twice the kubelet's default for a node.
const COUNT: usize = 200;
/// How often: the best one is what the machine can do.
const TIMES: usize = 5;

/// Orders all, one after the other as the agent does; the time from the first order to the last first line.
pub(super) async fn measure(sandboxes: &Sandboxes, programs: &[Sized]) -> Result<Table> {
    let title =
        "200 pods at once: first order → the last one's first line, ms (target: at most 1,000)";
    let mut table = Table::new(title, &["", "best of 5", "worst of 5"]);
    for program in programs.iter().take(2) {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            times.push(once(sandboxes, program).await?);
        }
        times.sort_by(f64::total_cmp);
        let ends = [times.first(), times.last()].map(|time| millis(time.copied().unwrap_or(0.0)));
        table.row([program.name.clone()].into_iter().chain(ends).collect());
    }
    Ok(table)
}

async fn once(sandboxes: &Sandboxes, program: &Sized) -> Result<f64> {
    let starts = (0..COUNT).map(|_| sandboxes.start(&program.guest, Way::Fork));
    let pods = starts.collect::<Result<Vec<_>>>()?;
    let mut last = Timestamp::MIN;
    for pod in &pods {
        last = last.max(pod.first_line().await?);
    }
    let first = pods.first().context("a burst of some")?.ordered;
    Ok(last.duration_since(first).as_secs_f64() * 1000.0)
}
