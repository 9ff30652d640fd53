//! The pods bound to this node: one watch, and one worker for each UID that it names or that a record is kept of.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use nodule_image::Images;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::admission::{Claim, Ledger};
use crate::events::Events;
use crate::evict::{self, Starved};
use crate::failure::Failure;
use crate::groups::Groups;
use crate::host::{Config, Host};
use crate::layers::Layers;
use crate::links::Links;
use crate::record::{self, Folder, Phase, Record};
use crate::shutdown;
use crate::user::Users;
use crate::view::{Instance, Log, LogError, View};
use crate::views::Views;
use crate::worker::{Desired, Worker};
use crate::zygote::{Start, Zygote};

/// API requests of all pods that may be under way at once; the rest of the agent has connections of its own.
const SLOTS: usize = 16;
/// Sandboxes that may be in their start at once.
const STARTS: usize = 4;
/// Pods whose use of the disk may be measured at once: it is the disk that they wait for.
const MEASURES: usize = 2;
/// The waits between two tries to watch while the API server is away.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// The tasks that serve all pods, for messages.
const POSTER: &str = "post the pods' events";
const ZYGOTE: &str = "keep a zygote";
const SHUTDOWN: &str = "end the pods when the machine is shut down";
const EVICT: &str = "evict pods when the node runs short";

type Watch = Pin<Box<dyn Stream<Item = watcher::Result<Event<Pod>>> + Send>>;

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
pub struct Error(Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("read the pods that this node knows")]
    Records { source: record::Error },
    #[error("look after a pod")]
    Worker { source: JoinError },
    #[error("the node is not told any more whether it is registered")]
    Unregistered,
    #[error("the watch of the node's pods has ended")]
    Watch,
    #[error("the task \"{task}\" has ended")]
    Ended { task: &'static str },
    #[error("the task \"{task}\" was broken off")]
    Broken { task: &'static str, source: JoinError },
}

impl Pods {
    /// The pods, and the runner that looks after them.
    pub fn new(
        client: kube::Client,
        config: Config,
        images: Images,
        inputs: Inputs,
    ) -> (Self, Runner) {
        let (missing, layers) = watch::channel(BTreeSet::new());
        let (drained, is_drained) = watch::channel(false);
        let pods = Self { views: Views::default(), layers, drained: is_drained };
        let (events, poster) = Events::new(client.clone(), config.node.clone());
        let zygote = Arc::new(Zygote::new(&config.sandbox, config.root.join("pods"), &config.run));
        let layers_missing = Layers::new(missing);
        let (orders, ordered) = mpsc::unbounded_channel();
        let host = Host {
            node: inputs.node,
            shutting: inputs.shutting,
            ledger: Ledger::default(),
            orders,
            zygote,
            groups: Groups::open(config.cgroups.as_ref(), &layers_missing),
            layers: layers_missing,
            users: config.users.clone().map(Users::new),
            config,
            client,
            images,
            events,
            slots: Arc::new(Semaphore::new(SLOTS)),
            starts: Semaphore::new(STARTS),
            measures: Semaphore::new(MEASURES),
        };
        let mut tasks = Tasks::default();
        tasks.spawn(POSTER, poster.run());
        if host.config.start == Start::Fork {
            tasks.spawn(ZYGOTE, Arc::clone(&host.zygote).watch());
        }
        let host = Arc::new(host);
        tasks.spawn(EVICT, evict::watch(Arc::clone(&host), pods.views.clone(), inputs.starved));
        let drain = shutdown::watch(Arc::clone(&host), pods.views.clone(), drained);
        tasks.spawn(SHUTDOWN, drain);
        let runner = Runner {
            host,
            views: pods.views.clone(),
            workers: JoinSet::new(),
            desired: HashMap::new(),
            fresh: HashSet::new(),
            away: false,
            ordered,
            tasks,
        };
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

/// Looks after the pods. The one task that starts workers.
pub struct Runner {
    host: Arc<Host>,
    views: Views,
    /// Each gives its pod's UID back when nothing of the pod is left.
    workers: JoinSet<String>,
    desired: HashMap<String, watch::Sender<Desired>>,
    /// The UIDs of the list that is being received.
    fresh: HashSet<String>,
    /// The API server has not answered since it last did.
    away: bool,
    /// Pods that are to end in the node's own right.
    ordered: mpsc::UnboundedReceiver<(String, Failure)>,
    /// What runs beside the workers for as long as they do.
    tasks: Tasks,
}

/// Tasks that must not end.
#[derive(Default)]
struct Tasks {
    running: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the first to end, however it does. May be dropped: nothing is lost.
    async fn end(&mut self) -> Cause {
        let name = |id| self.names.get(&id).copied().unwrap_or_default();
        match self.running.join_next_with_id().await {
            Some(Ok((id, ()))) => Cause::Ended { task: name(id) },
            Some(Err(source)) => Cause::Broken { task: name(source.id()), source },
            None => std::future::pending().await,
        }
    }
}

impl Runner {
    /// Takes up the pods that are recorded, then those that the API server names once the node is registered. Ends only
    /// when it cannot go on. Dropped, it leaves every container running.
    pub async fn run(mut self) -> Result<Infallible, Error> {
        let mut registered = self.host.node.clone();
        self.sweep().await;
        self.recall().map_err(|source| Error(Cause::Records { source }))?;
        registered.wait_for(Option::is_some).await.map_err(|_| Error(Cause::Unregistered))?;
        let mut streaming = true;
        let mut watch = self.watch(streaming);
        loop {
            tokio::select! {
                event = watch.next() => match event.ok_or(Error(Cause::Watch))? {
                    Ok(event) => self.see(event),
                    Err(error) if streaming && is_not_served(&error) => {
                        streaming = false;
                        watch = self.watch(streaming);
                    }
                    Err(error) => self.complain(&error),
                },
                Some(ended) = self.workers.join_next() => {
                    let uid = ended.map_err(|source| Error(Cause::Worker { source }))?;
                    self.forget(&uid);
                }
                Some((uid, failure)) = self.ordered.recv() => self.end(&uid, failure),
                cause = self.tasks.end() => return Err(Error(cause)),
            }
        }
    }

    /// The node's pods: by a streaming list (KEP-3157) where that is served, else by list and watch.
    fn watch(&self, streaming: bool) -> Watch {
        let api: Api<Pod> = Api::all(self.host.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.host.config.node));
        let config = if streaming { config.streaming_lists() } else { config };
        let waits = ExponentialBuilder::default()
            .with_min_delay(FIRST_WAIT)
            .with_max_delay(LONGEST_WAIT)
            .with_jitter()
            .without_max_times();
        watcher::watcher(api, config).backoff(ExponentialBackoff::from(waits)).boxed()
    }

    /// Removes what an earlier agent had no time to. Before any pod is looked after, so that what they make is not met.
    async fn sweep(&self) {
        let host = Arc::clone(&self.host);
        let sweep = move || {
            if let Err(error) = Links::new(&host.config).sweep() {
                warn!(error = &error as &dyn std::error::Error, "links to logs not removed");
            }
            let known = Folder::uids(&host.config.root);
            if let Err(error) = host.groups.sweep(&known) {
                warn!(error = &error as &dyn std::error::Error, "cgroups of old pods not removed");
            }
        };
        if let Err(error) = task::spawn_blocking(sweep).await {
            warn!(%error, "what old pods left is not removed");
        }
    }

    fn recall(&mut self) -> Result<(), record::Error> {
        let records = Folder::all(&self.host.config.root)?;
        // All of them before a pod that has none takes one.
        for user in records.iter().filter_map(|(_, record)| record.as_ref().ok()?.user) {
            self.host.users.iter().for_each(|users| users.recall(user));
        }
        for record in records.iter().filter_map(|(_, record)| record.as_ref().ok()) {
            if record.admitted && record.phase < Phase::Terminated {
                let uid = record.pod.metadata.uid.as_deref().unwrap_or_default();
                self.host.ledger.recall(uid, Claim::of(&record.pod));
            }
        }
        for (folder, record) in records {
            match record {
                Ok(record) => self.begin(folder, record),
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, "pod record not read");
                }
            }
        }
        Ok(())
    }

    fn see(&mut self, event: Event<Pod>) {
        if std::mem::take(&mut self.away) {
            info!("the API server answers again");
        }
        match event {
            Event::Init => self.fresh.clear(),
            Event::InitApply(pod) => {
                self.fresh.extend(pod.metadata.uid.clone());
                self.want(pod);
            }
            Event::InitDone => {
                let gone = self.desired.keys().filter(|uid| !self.fresh.contains(*uid));
                gone.cloned().collect::<Vec<_>>().iter().for_each(|uid| self.remove(uid));
            }
            Event::Apply(pod) => self.want(pod),
            Event::Delete(pod) => self.remove(&pod.metadata.uid.unwrap_or_default()),
        }
    }

    fn want(&mut self, mut pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        pod.metadata.managed_fields = None;
        let pod = Arc::new(pod);
        match self.desired.get(&uid) {
            Some(desired) => desired.send_modify(|desired| desired.pod = pod),
            None => {
                let folder = Folder::new(&self.host.config.root, &uid);
                self.begin(folder, Record::new(pod, Timestamp::now()));
            }
        }
    }

    fn remove(&mut self, uid: &str) {
        if let Some(desired) = self.desired.get(uid) {
            desired.send_modify(|desired| desired.removed = true);
        }
    }

    /// Has a pod ended in the node's own right.
    fn end(&mut self, uid: &str, failure: Failure) {
        if let Some(desired) = self.desired.get(uid) {
            desired.send_modify(|desired| desired.failure = Some(failure));
        }
    }

    fn begin(&mut self, folder: Folder, record: Record) {
        let meta = record.pod.metadata.clone();
        let uid = meta.uid.unwrap_or_default();
        let span = info_span!("pod", namespace = meta.namespace, name = meta.name, uid);
        let (sender, desired) =
            watch::channel(Desired { pod: Arc::clone(&record.pod), removed: false, failure: None });
        let (worker, view) = Worker::new(Arc::clone(&self.host), folder, record, desired);
        self.desired.insert(uid.clone(), sender);
        self.weigh();
        self.views.insert(uid.clone(), view);
        let work = async move {
            worker.run().await;
            uid
        };
        self.workers.spawn(work.instrument(span));
    }

    /// The burstable pods' share is that of all of them.
    fn weigh(&self) {
        let pods: Vec<_> =
            self.desired.values().map(|desired| Arc::clone(&desired.borrow().pod)).collect();
        self.host.groups.weigh(pods.iter().map(AsRef::as_ref));
    }

    fn forget(&mut self, uid: &str) {
        self.desired.remove(uid);
        self.weigh();
        self.views.remove(uid);
    }

    /// One line when the API server goes away, however often it is tried.
    fn complain(&mut self, error: &watcher::Error) {
        if std::mem::replace(&mut self.away, true) {
            debug!(error = error as &dyn std::error::Error, "still no watch of the node's pods");
        } else {
            warn!(
                error = error as &dyn std::error::Error,
                "the watch of the node's pods broke off: tried again"
            );
        }
    }
}

/// Whether the API server does not know streaming lists.
fn is_not_served(error: &watcher::Error) -> bool {
    let refused = |code| matches!(code, 400 | 422);
    if let watcher::Error::WatchError(status) = error {
        return refused(status.code);
    }
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if refused(status.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("wait", std::future::pending());
        tasks.spawn("stop", async {});
        assert_eq!(tasks.end().await.to_string(), "the task \"stop\" has ended");
        tasks.spawn("fall", async { panic!("as the test asked") });
        assert_eq!(tasks.end().await.to_string(), "the task \"fall\" was broken off");
    }
}
