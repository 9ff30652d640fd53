//! What all pods of a node share.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nodule_image::Images;
use nodule_volume::Memory;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::admission::Ledger;
use crate::events::Events;
use crate::failure::Failure;
use crate::groups::Groups;
use crate::layers::Layers;
use crate::metrics::Metrics;
use crate::mirror::Mirrors;
use crate::network::Network;
use crate::objects::Objects;
use crate::service::Services;
use crate::shutdown::ShutdownGroup;
use crate::user::Users;
use crate::zygote::{Start, Zygote};

/// How long a request for a volume may take: as long as the API server itself works on one (`--request-timeout`). The wait for
/// the request's turn counts, and a node that begins with all its pods has hundreds that wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the pods of a node need to know. The binary fills it in once.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: the pods bound to it are this agent's.
    pub node: String,
    /// The kubelet's version that the node reports: probes and hooks ask in its name.
    pub version: String,
    /// The node's addresses, primary first. They are the pods' too.
    pub addresses: Vec<String>,
    /// Where records and volumes lie: `<root>/pods`.
    pub root: PathBuf,
    /// Where sockets lie. Short: a socket's path has at most 107 bytes.
    pub run: PathBuf,
    /// The kubelet's log layout: `/var/log/pods`.
    pub logs: PathBuf,
    /// Where links to the logs are made for those who collect them: `/var/log/containers`.
    pub log_links: PathBuf,
    /// The `nodule-sandbox` program.
    pub sandbox: PathBuf,
    /// How it is started.
    pub start: Start,
    /// The users that pods become, one each; none where this agent cannot make a process another user's.
    pub users: Option<RangeInclusive<u32>>,
    /// Where pods have cgroups; none where they shall have none (`cgroupsPerQOS: false`).
    pub cgroups: Option<Cgroups>,
    /// The machine's memory in bytes.
    pub memory: u64,
    /// Whether this agent may make a process less likely to be killed than itself.
    pub privileged: bool,
    /// Whether this agent may mount file systems.
    pub may_mount: bool,
    /// The network that pods have.
    pub network: Network,
    /// A log file is turned when it is this long, in bytes (`containerLogMaxSize`).
    pub log_max_size: u64,
    /// Files that are kept of a container's log, the newest included (`containerLogMaxFiles`).
    pub log_max_files: u32,
    /// The groups in which pods end when the machine is shut down, by ascending priority; none where it does not wait for them.
    pub shutdown: Vec<ShutdownGroup>,
    /// How often a pod is looked at again when nothing happens (`syncFrequency`).
    pub sync: Duration,
    /// A pull that takes longer is told of with how far it is, and then ever more rarely.
    pub slow_pull: Duration,
    /// The longest wait before a container runs again (`crashLoopBackOff.maxContainerRestartPeriod`).
    pub longest_backoff: Duration,
}

/// Where pods have cgroups, and what all of them get.
#[derive(Debug, Clone)]
pub struct Cgroups {
    /// Where cgroup v2 is mounted.
    pub mount: PathBuf,
    /// The cgroup below it that holds `kubepods`; empty for the topmost (`cgroupRoot`).
    pub root: PathBuf,
    /// The CPUs that pods may use together, in thousandths.
    pub cpus: u64,
    /// The most processes and threads of a pod (`podPidsLimit`).
    pub pids: Option<u64>,
}

/// The node, as a pod's worker sees it.
pub(crate) struct Host {
    pub(crate) config: Config,
    /// None for a node that stands alone.
    pub(crate) client: Option<kube::Client>,
    pub(crate) images: Images,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// The mirrors of static pods.
    pub(crate) mirrors: watch::Receiver<Mirrors>,
    /// The ConfigMaps and Secrets that pods refer to.
    pub(crate) objects: Objects,
    /// Where what must not be on a disk lies.
    pub(crate) memory: OnceLock<Memory>,
    /// None until they were listed once.
    pub(crate) services: watch::Receiver<Option<Services>>,
    /// API requests that all pods together may have under way.
    pub(crate) slots: Arc<Semaphore>,
    /// The node as the API server shows it; none before it is registered, or where there is no API server.
    pub(crate) node: watch::Receiver<Option<Arc<Node>>>,
    /// Whether the machine is being shut down.
    pub(crate) shutting: watch::Receiver<bool>,
    /// What the pods were promised of the node.
    pub(crate) ledger: Ledger,
    /// Pods that are to end in the node's own right, by UID, and why.
    pub(crate) orders: mpsc::UnboundedSender<(String, Failure)>,
    /// Who forks sandboxes.
    pub(crate) zygote: Arc<Zygote>,
    pub(crate) groups: Groups,
    /// What sandboxes are not confined by.
    pub(crate) layers: Layers,
    /// The users of pods, where they have users.
    pub(crate) users: Option<Users>,
    /// Sandboxes that may be in their start at once: more would only take turns on the cores.
    pub(crate) starts: Semaphore,
    /// Pods whose use of the disk may be measured at once.
    pub(crate) measures: Semaphore,
}

impl Host {
    /// The node as it is now.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.node.borrow().clone()
    }

    /// Has a pod ended in the node's own right.
    pub(crate) fn order(&self, uid: String, failure: Failure) {
        // Only an agent that ends has no one who listens: the next one comes to the same.
        let _ = self.orders.send((uid, failure));
    }

    /// The API server; or that there is none, for whom it may concern.
    pub(crate) fn server(&self) -> Result<kube::Client, String> {
        self.client.clone().ok_or_else(|| "this node has no API server to ask".to_owned())
    }

    /// Where the files of all pods lie that must not be on a disk.
    pub(crate) fn memory_folder(&self) -> PathBuf {
        self.config.run.join("volumes")
    }

    /// Where those of one pod lie.
    pub(crate) fn memory_of(&self, pod: &Pod) -> PathBuf {
        self.memory_folder().join(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    /// Whether what lies there is off the disk.
    pub(crate) fn has_memory(&self) -> bool {
        self.memory.get().is_some_and(Memory::is_memory)
    }

    /// What the node gives to pods, as the API server was told; before that, what this machine has.
    pub(crate) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let told = self.node().and_then(|node| node.status.as_ref()?.allocatable.clone());
        told.unwrap_or_else(|| {
            let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpus.to_string())),
                ("memory".to_owned(), Quantity(self.config.memory.to_string())),
            ])
        })
    }
}
