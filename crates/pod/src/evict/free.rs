//! What goes before a pod does when the disk is full: what ended pods have left, then images that no pod uses (the kubelet's
//! `reclaimNodeLevelResources`).

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};

use crate::host::Host;
use crate::in_use::in_use;
use crate::links::{self, Links};
use crate::record::{self, Folder, Phase};
use crate::view::log_folder;
use crate::views::Views;

/// Frees what can be. What cannot is told and left to the next round.
pub(super) async fn free(host: &Arc<Host>, views: &Views) {
    let (asked, views) = (Arc::clone(host), views.now());
    let used = tokio::task::spawn_blocking(move || {
        views.iter().filter(|view| !view.is_active()).for_each(|view| bury(&asked, &view.pod));
        in_use(&asked.config.root, &asked.images, |record| record.phase < Phase::Terminated)
    });
    match used.await {
        Ok(Ok(used)) => free_images(host, used).await,
        // Whoever runs by a record that cannot be read may need any of them.
        Ok(Err(error)) => {
            warn!(error = &error as &dyn std::error::Error, "images in use not known: all stay");
        }
        Err(error) => warn!(%error, "nothing freed"),
    }
}

async fn free_images(host: &Host, used: BTreeSet<String>) {
    match host.images.free(used).await {
        Ok(freed) => info!(images = freed.spaced, "unused images removed to make room"),
        Err(error) => warn!(error = &error as &dyn std::error::Error, "unused images not removed"),
    }
}

/// Removes the logs and the state of an ended pod's containers, their own files among it. Its worker starts nothing any more,
/// and does nothing there but remove it.
fn bury(host: &Host, pod: &Pod) {
    if let Err(error) = bury_links(host, pod) {
        warn!(error = &error as &dyn std::error::Error, "links to logs not removed");
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let containers = Folder::new(&host.config.root, uid).containers();
    for folder in [containers, host.config.logs.join(log_folder(pod))] {
        if let Err(error) = record::remove(&folder) {
            warn!(uid, error = &error as &dyn std::error::Error, "an ended pod's rest not removed");
        }
    }
}

fn bury_links(host: &Host, pod: &Pod) -> Result<(), links::Error> {
    Links::new(&host.config).forget_pod(pod)
}
