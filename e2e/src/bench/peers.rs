//! Others who carry the same images: skopeo, [`containerd`](super::containerd), and tar, which only unpacks.

use std::fs;

use anyhow::Result;

use super::containerd::Containerd;
use super::ways::{settle, timed};
use crate::tools::Workshop;

/// All of them, with a folder of their own. What they took, they give in seconds.
pub(super) struct Peers {
    containerd: Containerd,
    workshop: Workshop,
}

impl Peers {
    pub(super) async fn start() -> Result<Self> {
        let workshop = Workshop::new()?;
        Ok(Self { containerd: Containerd::start(&workshop).await?, workshop })
    }

    /// Pulls and unpacks.
    pub(super) fn containerd(&self, image: &str) -> Result<f64> {
        settled(|| self.containerd.pull(&self.workshop, image))
    }

    /// Copies to a folder, and leaves all layers packed.
    pub(super) fn skopeo(&self, image: &str) -> Result<f64> {
        let (from, to) = (format!("docker://{image}"), self.workshop.path("copied"));
        let to = format!("dir:{}", to.display());
        let copy = ["copy", "--quiet", "--src-tls-verify=false", &from, &to];
        let took = settled(|| self.workshop.run("skopeo", &copy).map(drop))?;
        fs::remove_dir_all(self.workshop.path("copied"))?;
        Ok(took)
    }

    /// Unpacks what is here already. Nothing is removed while others are measured: ext4 without a journal searches long for
    /// inodes where many were freed within the last seconds.
    pub(super) fn tar(&self, name: &str, layer: &[u8]) -> Result<f64> {
        self.workshop.write("layer.tar.gz", layer)?;
        fs::create_dir(self.workshop.path(name))?;
        let unpack = ["--extract", "--gzip", "--file", "layer.tar.gz", "--directory", name];
        settled(|| self.workshop.run("tar", &unpack).map(drop))
    }
}

/// The seconds that this takes, once nobody's earlier writes are in the way.
fn settled(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    settle();
    timed(work)
}
