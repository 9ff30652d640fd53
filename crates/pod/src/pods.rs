//! The pods of this node, for those who look at them from outside; and how the work on them is set up.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Node, Pod};
use nodule_image::Images;
use nodule_volume::MemoryError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinError;

use crate::admission::Ledger;
use crate::cluster::Silent;
use crate::events::Events;
use crate::evict::{self, Starved};
use crate::groups::Groups;
use crate::host::{Config, Host};
use crate::layers::Layers;
use crate::metrics::Metrics;
use crate::mirror::{self, Mirrors};
use crate::objects::{Keeper, Objects};
use crate::record;
use crate::runner::Runner;
use crate::service::{self, Services};
use crate::shutdown;
use crate::source::{Clients, Sources};
use crate::tasks::{Ended, Tasks};
use crate::user::Users;
use crate::view::{Instance, Log, LogError, View};
use crate::views::Views;
use crate::zygote::{Start, Zygote};

/// API requests of all pods that may be under way at once; the rest of the agent has connections of its own.
const SLOTS: usize = 16;
/// Sandboxes that may be in their start at once.
const STARTS: usize = 4;
/// Pods whose use of the disk may be measured at once: it is the disk that they wait for.
const MEASURES: usize = 2;
/// The tasks that serve all pods, for messages.
const POSTER: &str = "post the pods' events";
const MIRRORS: &str = "keep the mirrors of static pods";
const ZYGOTE: &str = "keep a zygote";

const SHUTDOWN: &str = "end the pods when the machine is shut down";
const EVICT: &str = "evict pods when the node runs short";
const OBJECTS: &str = "watch what pods refer to";
const SERVICES: &str = "watch services";

/// The pods of this node, for those who look at them from outside. Clones show the same pods.
#[derive(Debug, Clone)]
pub struct Pods {
    views: Views,
    /// Written by the workers.
    layers: watch::Receiver<BTreeSet<String>>,
    drained: watch::Receiver<bool>,
}

/// What is known of the node.
pub struct Inputs {
    /// The Node as the API server last showed it, once it is registered.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    /// What there is too little of, after every measure.
    pub starved: watch::Receiver<Vec<Starved>>,
    /// Whether the machine is being shut down.
    pub shutting: watch::Receiver<bool>,
}

/// Why the pods are looked after no more.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Cause);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("read the pods that this node knows")]
    Records { source: record::Error },
    #[error("make a place for Secrets in memory")]
    Memory { source: MemoryError },
    #[error("look after a pod")]
    Worker { source: JoinError },
    #[error(transparent)]
    Silent(#[from] Silent),
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// What is read of the cluster and written to it beside pods.
struct Feeds {
    keeper: Keeper,
    listed: watch::Sender<Option<Services>>,
    mirrors: watch::Receiver<Mirrors>,
}

impl Feeds {
    /// Starts what does so, and gives back where Events are said.
    fn start(self, cluster: Option<Clients>, config: &Config, tasks: &mut Tasks) -> Events {
        let Some(Clients { pods: client, events }) = cluster else {
            // There is nobody to list any.
            self.listed.send_replace(Some(Services::default()));
            return Events::logged(config.node.clone());
        };
        let (events, poster) = Events::new(events, config.node.clone());
        tasks.spawn(POSTER, poster.run());
        tasks.spawn(OBJECTS, self.keeper.run(client.clone()));
        tasks.spawn(SERVICES, service::follow(client.clone(), self.listed));
        tasks.spawn(MIRRORS, mirror::keep(client, self.mirrors));
        events
    }
}

fn zygote(config: &Config, tasks: &mut Tasks) -> Arc<Zygote> {
    let folder = config.root.join("pods");
    let zygote = Arc::new(Zygote::new(config.start, &config.sandbox, folder, &config.run));
    if config.start == Start::Fork {
        tasks.spawn(ZYGOTE, Arc::clone(&zygote).watch());
    }
    zygote
}

impl Pods {
    /// The pods of these sources, and the runner that looks after them.
    pub fn new(
        sources: Sources,
        config: Config,
        images: Images,
        inputs: Inputs,
        metrics: Metrics,
    ) -> (Self, Runner) {
        let (missing, layers) = watch::channel(BTreeSet::new());
        let (drained, is_drained) = watch::channel(false);
        let pods = Self { views: Views::default(), layers, drained: is_drained };
        let (mirrors, seen) = watch::channel(Mirrors::default());
        let mut tasks = Tasks::default();
        let (objects, keeper) = Objects::new();
        let (listed, services) = watch::channel(None);
        let feeds = Feeds { keeper, listed, mirrors: seen.clone() };
        let events = feeds.start(sources.cluster.clone(), &config, &mut tasks);
        let zygote = zygote(&config, &mut tasks);
        let layers_missing = Layers::new(missing);
        let (orders, ordered) = mpsc::unbounded_channel();
        let host = Arc::new(Host {
            node: inputs.node,
            shutting: inputs.shutting,
            ledger: Ledger::default(),
            orders,
            zygote,
            groups: Groups::open(config.cgroups.as_ref(), &layers_missing),
            layers: layers_missing,
            users: config.users.clone().map(Users::new),
            config,
            client: sources.cluster.as_ref().map(|cluster| cluster.pods.clone()),
            images,
            events,
            metrics,
            objects,
            services,
            mirrors: seen,
            memory: OnceLock::new(),
            slots: Arc::new(Semaphore::new(SLOTS)),
            starts: Semaphore::new(STARTS),
            measures: Semaphore::new(MEASURES),
        });
        tasks.spawn(EVICT, evict::watch(Arc::clone(&host), pods.views.clone(), inputs.starved));
        let drain = shutdown::watch(Arc::clone(&host), pods.views.clone(), drained);
        tasks.spawn(SHUTDOWN, drain);
        let runner = Runner::new(sources, host, pods.views.clone(), mirrors, ordered, tasks);
        (pods, runner)
    }

    /// The layers of confinement that some sandbox of this agent was started without, by name.
    pub fn missing_layers(&self) -> watch::Receiver<BTreeSet<String>> {
        self.layers.clone()
    }

    /// Whether the pods have ended because the machine is shut down, or their time is over.
    pub fn drained(&self) -> watch::Receiver<bool> {
        self.drained.clone()
    }

    /// Every pod that is bound to this node, with the status known here.
    pub fn list(&self) -> Vec<Pod> {
        self.views.now().iter().map(View::pod).collect()
    }

    /// Where a container's log lies.
    pub fn log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        instance: Instance,
    ) -> Result<Log, LogError> {
        let named = |view: &View| {
            let meta = &view.pod.metadata;
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(pod)
        };
        let mut views = self.views.now();
        views.retain(named);
        // A pod that is being removed may be followed by one of the same name: that one is meant.
        views.sort_by_key(|view| view.pod.metadata.creation_timestamp.clone());
        let view = views.pop().ok_or_else(|| LogError::NoPod { pod: pod.to_owned() })?;
        view.log(container, instance)
    }
}
