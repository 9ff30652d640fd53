//! Eviction: when the node runs short of memory, disk or process ids, pods end so that it lives (Kubernetes docs, "Node-pressure
//! Eviction"; the kubelet's `eviction/eviction_manager.go`).
//!
//! One pod a round, and its end is waited for before the node is measured anew. [`rank`] says which, and why; [`measure`] asks what
//! they use.

mod measure;
mod rank;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admission::is_critical;
use crate::failure::Failure;
use crate::host::Host;
use crate::view::View;
use crate::views::Views;
use rank::Candidate;

/// How long the end of an evicted pod is waited for (the kubelet's `podCleanupTimeout`).
const CLEANUP: Duration = Duration::from_secs(30);

/// A resource of the node's that pods are evicted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of memory.
    Memory,
    /// Bytes of the disk.
    Storage,
    /// Inodes of the disk.
    Inodes,
    /// Process ids.
    Pids,
}

/// Of this resource less is left than an eviction threshold asks for; amounts in its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starved {
    /// Which.
    pub resource: Resource,
    /// What must be left.
    pub threshold: u64,
    /// What is.
    pub available: u64,
    /// The threshold is a soft one: so many seconds a pod has at most to end (`evictionMaxPodGracePeriod`).
    pub longest_grace: Option<u64>,
}

/// Evicts a pod whenever the node is measured and found short, for as long as the future is polled.
pub(crate) async fn watch(
    host: Arc<Host>,
    views: Views,
    mut starved: watch::Receiver<Vec<Starved>>,
) {
    loop {
        let first = starved.borrow_and_update().first().copied();
        if let Some(short) = first {
            relieve(&host, &views, short).await;
        }
        if starved.changed().await.is_err() {
            // Nobody measures the node any more: the agent ends.
            return std::future::pending().await;
        }
    }
}

async fn relieve(host: &Arc<Host>, views: &Views, short: Starved) {
    let candidates = views.all().into_iter().filter(|(_, view)| may_go(&view.borrow()));
    let candidates: Vec<_> = candidates.collect();
    let (asked, looked) = (Arc::clone(host), candidates.clone());
    let measure = move || {
        let measured = looked.iter().map(|(uid, view)| {
            let view = view.borrow().clone();
            Candidate::new(uid, &view, measure::pod(&asked, &view, short.resource))
        });
        measured.collect()
    };
    let measured: Vec<Candidate> = match tokio::task::spawn_blocking(measure).await {
        Ok(measured) => measured,
        Err(error) => return warn!(%error, "pods not measured"),
    };
    let Some(victim) = rank::first(measured, short.resource) else {
        return warn!(?short, "the node is short, and there is no pod to evict");
    };
    let uid = victim.uid.clone();
    info!(?short, uid, "a pod is evicted so that the node lives");
    host.order(uid.clone(), Failure::starved(&victim, short));
    let Some((_, mut view)) = candidates.into_iter().find(|(candidate, _)| *candidate == uid)
    else {
        return;
    };
    let ended = view.wait_for(|view| !view.is_active());
    if timeout(CLEANUP, ended).await.is_err() {
        warn!(uid, "an evicted pod is still there");
    }
}

fn may_go(view: &View) -> bool {
    view.is_active() && !is_critical(&view.pod)
}
