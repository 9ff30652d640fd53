//! What idle containers do: nothing should wake them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::container::Running;

/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(10);

/// How often a container's threads are woken or put aside, for each container and second.
pub(super) async fn wakeups(pods: &[Running]) -> Result<f64> {
    let before = switches(pods)?;
    tokio::time::sleep(WATCHED).await;
    let switches = switches(pods)? - before;
    #[expect(clippy::cast_precision_loss, reason = "a count of containers")]
    Ok(switches / pods.len() as f64 / WATCHED.as_secs_f64())
}

/// Context switches of all threads since they began, wanted or not (proc_pid_status(5)).
fn switches(pods: &[Running]) -> Result<f64> {
    let mut sum = 0.0;
    for pod in pods {
        for thread in fs::read_dir(format!("/proc/{}/task", pod.pid))? {
            let text = fs::read_to_string(thread?.path().join("status"))?;
            sum += counted(&text).context("context switches")?;
        }
    }
    Ok(sum)
}

fn counted(status: &str) -> Option<f64> {
    let counts = status
        .lines()
        .filter_map(|line| line.split_once("voluntary_ctxt_switches:"))
        .map(|(_, count)| count.trim().parse::<f64>().ok());
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Threads:\t2\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(counted(status), Some(7.0));
    }
}
