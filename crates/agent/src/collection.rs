//! Removes images that nobody uses, as often as the kubelet does.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use nodule_image::{Collect, Images};
use nodule_pod::images_in_use;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// The kubelet's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_mins(5);

/// Looks every five minutes whether there is too little room. Pods that an earlier agent left are known long before the
/// first look; what cannot be removed is tried again at the next.
pub(crate) async fn run(images: Images, collect: Collect, root: PathBuf) -> Result<()> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let used = match used(&images, root.clone()).await {
            Ok(used) => used,
            Err(error) => {
                warn!(error = format!("{error:#}"), "images in use not known: all stay");
                continue;
            }
        };
        match images.collect(collect.clone(), used).await {
            Ok(done) if done.lacking > 0 => {
                let bytes = done.lacking;
                warn!(
                    bytes,
                    "images take too much room, and those that are left are in use or new"
                );
            }
            Ok(done) if done.aged + done.spaced > 0 => {
                info!(aged = done.aged, spaced = done.spaced, "unused images removed");
            }
            Ok(_) => {}
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "unused images not removed");
            }
        }
    }
}

/// The images of the pods below an agent's root folder.
pub(crate) async fn used(images: &Images, root: PathBuf) -> Result<BTreeSet<String>> {
    let images = images.clone();
    Ok(spawn_blocking(move || images_in_use(&root, &images))
        .await
        .context("look at the pods")??)
}
