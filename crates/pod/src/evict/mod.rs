//! Eviction: when the node runs short of memory, disk or process ids, pods end so that it lives (Kubernetes docs, "Node-pressure
//! Eviction"; the kubelet's `eviction/eviction_manager.go`).
//!
//! Of the disk, what nobody needs goes first ([`free`]). Then one pod a round, and its end is waited for before the node is
//! measured anew. [`rank`] says which, and why; [`measure`] asks what they use.

mod free;
mod measure;
mod rank;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admission::is_critical;
use crate::events::Kind;
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
    /// What must be before nothing is done for it any more: the threshold and the minimum to be reclaimed.
    pub wanted: u64,
    /// The threshold is a soft one: so many seconds a pod has at most to end (`evictionMaxPodGracePeriod`).
    pub longest_grace: Option<u64>,
}

/// Makes room whenever the node is measured and found short, for as long as the future is polled.
pub(crate) async fn watch(
    host: Arc<Host>,
    views: Views,
    mut starved: watch::Receiver<Vec<Starved>>,
) {
    loop {
        let all = starved.borrow_and_update().clone();
        if let Some(short) = all.first() {
            relieve(&host, &views, *short, &all).await;
            // What was measured meanwhile does not know yet what it did.
            starved.mark_unchanged();
        }
        if starved.changed().await.is_err() {
            // Nobody measures the node any more: the agent ends.
            return std::future::pending().await;
        }
    }
}

/// Frees what pods need not end for, and evicts one if that was not enough.
async fn relieve(host: &Arc<Host>, views: &Views, short: Starved, all: &[Starved]) {
    let message = format!("Attempting to reclaim {}", short.resource.told());
    host.events.say_of_node(Kind::Warning, "EvictionThresholdMet", &message);
    if short.resource.is_of_disk() {
        free::free(host, views).await;
        let mut of_disk = all.iter().filter(|one| one.resource.is_of_disk());
        if of_disk.all(|one| is_over(host, one)) {
            return info!(?short, "the node is not short any more, without evicting a pod");
        }
    }
    evict(host, views, short).await;
}

/// Whether as much as is wanted of the disk is there now.
fn is_over(host: &Host, starved: &Starved) -> bool {
    let left = measure::left(&host.config.root, starved.resource);
    left.is_some_and(|left| left >= starved.wanted)
}

async fn evict(host: &Arc<Host>, views: &Views, short: Starved) {
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
