use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ContainerImage;
use nodule_image::{Images, Listed};
use tokio::{sync::watch, task::spawn_blocking, time::interval};

/// Looks which images there are, as often as the node's status is computed, and tells when they have changed.
pub(crate) async fn watch(
    images: Images,
    period: Duration,
    listed: watch::Sender<Vec<ContainerImage>>,
) -> Result<()> {
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let images = images.clone();
        let found = spawn_blocking(move || images.list()).await.context("list the images")?;
        let found: Vec<_> = found.into_iter().map(published).collect();
        listed.send_if_modified(|old| {
            let changed = *old != found;
            *old = found;
            changed
        });
    }
}

fn published(image: Listed) -> ContainerImage {
    ContainerImage { names: Some(image.names), size_bytes: i64::try_from(image.size).ok() }
}
