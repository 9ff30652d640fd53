//! How a node's images are looked after.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ContainerImage;
use nodule_api::Metrics;
use nodule_image::{Collect, Images};
use tokio::sync::watch;

use crate::{collection, image, image::Keeper, inventory, local::SOCKET, supervisor::Supervisor};

/// A node's images, and what is needed to look after them.
pub(crate) struct Tended {
    pub(crate) images: Images,
    collect: Collect,
    /// Where it is written what pods use.
    root: PathBuf,
    /// Where commands ask.
    socket: PathBuf,
    /// How often they are listed.
    period: Duration,
}

impl Tended {
    /// Opens them. They are listed for the Node's status as often as `period` says.
    pub(crate) async fn open(
        config: nodule_image::Config,
        pods: &nodule_pod::Config,
        period: Duration,
        metrics: &Metrics,
    ) -> Result<Self> {
        let (root, socket) = (pods.root.clone(), pods.run.join(SOCKET));
        let counted = nodule_image::Metrics::register(&metrics.node).context("count images")?;
        let collect = config.collect.clone();
        let images = Images::open(config, counted).await.context("open the images")?;
        Ok(Self { images, collect, root, socket, period })
    }

    /// Starts what removes them, what lists them for the Node's status, and what answers commands.
    pub(crate) fn start(
        self,
        listed: watch::Sender<Vec<ContainerImage>>,
        supervisor: &mut Supervisor,
    ) {
        let images = self.images;
        let collection = collection::run(images.clone(), self.collect, self.root.clone());
        supervisor.start("image collection", collection);
        let keeper = Keeper::new(images.clone(), self.root);
        supervisor.start("image commands", image::serve(self.socket, keeper));
        supervisor.start("images", inventory::watch(images, self.period, listed));
    }
}
