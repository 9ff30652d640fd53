//! Graceful node shutdown (KEP-2000, KEP-2712): pods end in groups by their priority, the least important first, each group within
//! its time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::ending::own_grace;
use crate::failure::Failure;
use crate::host::Host;
use crate::view::View;
use crate::views::Views;

/// Pods of one priority or more, and how long they may take to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownGroup {
    /// The least priority.
    pub priority: i32,
    /// The longest grace period.
    pub grace: Duration,
}

/// Ends the pods when the machine is shut down, and says when that is done. Runs for as long as it is polled.
pub(crate) async fn watch(host: Arc<Host>, views: Views, drained: watch::Sender<bool>) {
    let mut shutting = host.shutting.clone();
    loop {
        if shutting.wait_for(|shutting| *shutting).await.is_err() {
            // The agent ends.
            return std::future::pending().await;
        }
        info!("the machine is shut down: pods end");
        drain(&host, &views).await;
        drained.send_replace(true);
        if shutting.wait_for(|shutting| !*shutting).await.is_err() {
            return std::future::pending().await;
        }
        drained.send_replace(false);
    }
}

async fn drain(host: &Host, views: &Views) {
    let groups = &host.config.shutdown;
    for (place, group) in groups.iter().enumerate() {
        let mine = |view: &View| {
            let priority = view.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            view.is_active() && place_of(groups, priority) == place
        };
        let pods: Vec<_> =
            views.all().into_iter().filter(|(_, view)| mine(&view.borrow())).collect();
        for (uid, view) in &pods {
            let own = Duration::from_secs(own_grace(&view.borrow().pod));
            host.order(uid.clone(), Failure::shutdown(own.min(group.grace)));
        }
        let ended = pods.into_iter().map(|(_, mut view)| async move {
            // A view that is gone is that of a pod that is.
            let _ = view.wait_for(|view| !view.is_active()).await;
        });
        if timeout(group.grace, join_all(ended)).await.is_err() {
            warn!(priority = group.priority, "pods have not ended in the time of their group");
        }
    }
}

/// The group of a priority: the highest that it reaches; those below all are of the lowest. `groups` ascend.
fn place_of(groups: &[ShutdownGroup], priority: i32) -> usize {
    groups.iter().rposition(|group| group.priority <= priority).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_of_the_highest_group_that_its_priority_reaches() {
        let group = |priority| ShutdownGroup { priority, grace: Duration::ZERO };
        let groups = [group(0), group(100), group(2_000_000_000)];
        for (priority, place) in
            [(-5, 0), (0, 0), (99, 0), (100, 1), (1_000_000, 1), (2_000_001_000, 2)]
        {
            assert_eq!(place_of(&groups, priority), place, "{priority}");
        }
    }
}
