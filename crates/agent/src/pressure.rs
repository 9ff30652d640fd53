//! What the node is short of, from the node's words to the pods': the two do not know each other.

use anyhow::{Result, bail};
use nodule_node::Resource as OfNode;
use nodule_pod::{Resource, Starved};
use tokio::sync::watch;

/// Tells the pods whatever the node measures.
pub(crate) async fn forward(
    mut measured: watch::Receiver<Vec<nodule_node::Starved>>,
    told: watch::Sender<Vec<Starved>>,
) -> Result<()> {
    while measured.changed().await.is_ok() {
        let starved = measured.borrow_and_update().iter().map(starved).collect();
        told.send_replace(starved);
    }
    bail!("the node is not measured any more")
}

fn starved(short: &nodule_node::Starved) -> Starved {
    let resource = match short.resource {
        OfNode::Memory => Resource::Memory,
        OfNode::Storage => Resource::Storage,
        OfNode::Inodes => Resource::Inodes,
        OfNode::Pids => Resource::Pids,
    };
    Starved {
        resource,
        threshold: short.threshold,
        available: short.available,
        wanted: short.wanted,
        longest_grace: short.longest_grace,
    }
}
