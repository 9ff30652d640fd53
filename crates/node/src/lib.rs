//! The node as the cluster sees it: the Node object, its conditions and its Lease.
//!
//! [`run`] starts three tasks and ends only when one of them does, which none of them means to:
//!
//! * [`report`]: registers the Node, watches it, and keeps its status true;
//! * [`lease`]: renews `kube-node-lease/<node>`, whatever becomes of the status;
//! * [`events`]: tells the cluster what the other two saw (`NodeReady`, `Rebooted`, …).
//!
//! What they decide is in pure modules: [`resources`] (capacity and allocatable), [`pressure`] and [`conditions`],
//! [`object`] (the Node that is wanted, and the patch that makes it so). [`machine`] reads the machine, and [`gauge`] says when.
//! No answer of the API server ends a task; [`reach`] keeps the log quiet while it is away.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use k8s_openapi::api::core::v1::{ContainerImage, Node};
use kube::Client;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

mod backoff;
mod conditions;
mod config;
mod events;
mod gauge;
mod lease;
mod limit;
mod machine;
mod object;
mod pressure;
pub mod quantity;
mod reach;
mod report;
mod resources;
mod server;
mod shutdown;

pub use config::{Amount, Config, Periods, Reserved, Soft, Thresholds};
pub use pressure::{Resource, Starved};
pub use shutdown::{Shutdown, watch as watch_shutdown};

use crate::{reach::Reach, server::Server};

/// The `kubeletVersion` of the Node: the kubelet whose contract is kept, with build metadata that says who keeps it.
pub const KUBELET_VERSION: &str = "v1.36.3+nodule";

/// The connections to the API server, so that nothing that is stuck on one of them delays the Lease. How often each asks is
/// the client's own matter: one of the first two must not wait for a turn.
pub struct Clients {
    /// For the Node and its status.
    pub node: Client,
    /// For the Lease alone.
    pub lease: Client,
    /// For the node's Events.
    pub events: Client,
}

/// What the Node's status needs of the rest of the agent.
pub struct Inputs {
    /// Why the node cannot run pods, one sentence each; empty means Ready.
    pub problems: watch::Receiver<Vec<String>>,
    /// The layers of confinement that sandboxes lack, by name.
    pub unconfined: watch::Receiver<BTreeSet<String>>,
    /// The images on this node, in any order and number; what is published is cut as the kubelet cuts it.
    pub images: watch::Receiver<Vec<ContainerImage>>,
}

/// What the rest of the agent is told of the node.
pub struct Outputs {
    /// The Node as the API server last showed it; `None` before registration and after the object was deleted (it is then
    /// made again, with a new UID).
    pub registered: watch::Sender<Option<Arc<Node>>>,
    /// What there is too little of, sent after every measure, changed or not: pods are evicted for it.
    pub starved: watch::Sender<Vec<Starved>>,
}

/// Why [`run`] ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task panicked.
    #[error("a task of the node ended")]
    Ended(#[source] JoinError),
}

/// Registers the node and keeps its status and Lease, for as long as the future is polled.
pub async fn run(
    clients: Clients,
    config: Config,
    inputs: Inputs,
    outputs: Outputs,
) -> Result<Infallible, Error> {
    let config = Arc::new(config);
    let reach = Reach::default();
    let leases = Server::new(clients.lease, config.periods.request, reach.clone());
    let server = Server::new(clients.node, config.periods.request, reach);
    let (events, queue) = events::queue();

    let mut tasks = JoinSet::new();
    tasks.spawn(
        lease::Renewal::new(leases, Arc::clone(&config), outputs.registered.subscribe()).run(),
    );
    tasks.spawn(events::deliver(clients.events, Arc::clone(&config), queue));
    tasks.spawn(report::Report::new(server, config, inputs, outputs, events).run());
    loop {
        if let Some(Err(error)) = tasks.join_next().await {
            return Err(Error::Ended(error));
        }
    }
}
