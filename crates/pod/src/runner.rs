//! One worker for each pod that a source names or that a record is kept of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use nodule_manifest::Set;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, info_span};

use crate::cluster::{Listener, Word};
use crate::failure::Failure;
use crate::host::Host;
use crate::left::Left;
use crate::mirror::{self, Mirrors, is_mirror};
use crate::pods::{Cause, Error};
use crate::record::{Folder, Record};
use crate::source::{self, News, Order, Origin, STATICS, Sources};
use crate::tasks::Tasks;
use crate::views::Views;
use crate::worker::{Desired, Worker};

/// Looks after the pods. The one task that starts workers.
pub struct Runner {
    pub(crate) host: Arc<Host>,
    views: Views,
    /// Each gives its pod's UID back when nothing of the pod is left.
    workers: JoinSet<String>,
    pub(crate) desired: HashMap<String, watch::Sender<Desired>>,
    /// Pods that have a folder and no record that can be read, by UID, until it is known whether some source has them.
    pub(crate) left: HashMap<String, Left>,
    /// The API server's pods.
    cluster: Listener,
    /// The UIDs of the list that is being received, mirrors' among them.
    fresh: HashSet<String>,
    /// All other sources.
    news: SelectAll<BoxStream<'static, News>>,
    /// The newest set of each place of static pods.
    pub(crate) sets: BTreeMap<&'static str, Set>,
    pub(crate) mirrors: watch::Sender<Mirrors>,
    /// Pods that are to end in the node's own right.
    ordered: mpsc::UnboundedReceiver<(String, Failure)>,
    /// What runs beside the workers for as long as they do.
    tasks: Tasks,
}

impl Runner {
    pub(crate) fn new(
        sources: Sources,
        host: Arc<Host>,
        views: Views,
        mirrors: watch::Sender<Mirrors>,
        ordered: mpsc::UnboundedReceiver<(String, Failure)>,
        tasks: Tasks,
    ) -> Self {
        // Pods of a place that is not configured any more are not wanted.
        let configured: Vec<_> = sources.statics.iter().map(|place| place.source).collect();
        let gone = STATICS.into_iter().filter(|source| !configured.contains(source));
        Self {
            cluster: Listener::new(
                host.client.clone(),
                host.node.clone(),
                host.config.node.clone(),
            ),
            news: source::news(sources.statics, sources.orders),
            sets: gone.map(|source| (source, Set::default())).collect(),
            host,
            views,
            workers: JoinSet::new(),
            desired: HashMap::new(),
            left: HashMap::new(),
            fresh: HashSet::new(),
            mirrors,
            ordered,
            tasks,
        }
    }

    /// Takes up the pods that are recorded, then those of the other sources, and those that the API server names once the
    /// node is registered. Ends only when it cannot go on. Dropped, it leaves every container running.
    pub async fn run(mut self) -> Result<Infallible, Error> {
        Self::remember(Arc::clone(&self.host)).await?;
        Self::sweep(Arc::clone(&self.host)).await;
        self.recall().map_err(|source| Cause::Records { source })?;
        self.settle();
        loop {
            tokio::select! {
                word = self.cluster.next() => match word.map_err(Cause::from)? {
                    Word::Registered(node) => {
                        self.mirrors.send_modify(|mirrors| mirrors.node = Some(node));
                    }
                    Word::Pod(event) => self.see(*event),
                },
                Some(news) = self.news.next() => match news {
                    News::Set(source, set) => self.replace(source, set),
                    News::Order(order) => self.obey(order),
                },
                Some(ended) = self.workers.join_next() => {
                    let uid = ended.map_err(|source| Cause::Worker { source })?;
                    self.forget(&uid);
                }
                Some((uid, failure)) = self.ordered.recv() => self.end(&uid, failure),
                ended = self.tasks.end() => return Err(Cause::from(ended).into()),
            }
        }
    }

    fn see(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.fresh.clear(),
            Event::InitApply(pod) => {
                self.fresh.extend(pod.metadata.uid.clone());
                self.want(pod);
            }
            Event::InitDone => self.end_of_list(),
            Event::Apply(pod) => self.want(pod),
            Event::Delete(pod) if is_mirror(&pod) => self.mirrors.send_modify(|mirrors| {
                mirrors.seen.remove(&mirror::name(&pod));
            }),
            Event::Delete(pod) => self.remove(&pod.metadata.uid.unwrap_or_default()),
        }
    }

    /// What the API server has not named is not there any more, if it was the API server's.
    fn end_of_list(&mut self) {
        let gone = self.desired.iter().filter(|(uid, desired)| {
            let from = Origin::of(&desired.borrow().pod);
            from == Origin::Cluster && !self.fresh.contains(*uid)
        });
        let gone: Vec<String> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().for_each(|uid| self.remove(uid));
        let fresh =
            |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| self.fresh.contains(uid));
        self.mirrors.send_modify(|mirrors| {
            mirrors.seen.retain(|_, mirror| fresh(mirror));
            mirrors.synced = true;
        });
        self.remove_left();
    }

    fn want(&mut self, mut pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        pod.metadata.managed_fields = None;
        if is_mirror(&pod) {
            self.mirrors.send_modify(|mirrors| {
                mirrors.seen.insert(mirror::name(&pod), Arc::new(pod));
            });
            return;
        }
        Origin::Cluster.mark(&mut pod);
        let pod = Arc::new(pod);
        if !self.desired.contains_key(&uid) {
            self.succeed(&pod);
            self.take_on(Arc::clone(&pod));
        }
        if let Some(desired) = self.desired.get(&uid) {
            desired.send_modify(|desired| {
                desired.pod = pod;
                desired.named = true;
            });
        }
    }

    pub(crate) fn take_on(&mut self, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let folder = Folder::new(&self.host.config.root, &uid);
        let record = match self.left.remove(&uid) {
            Some(left) => self.restore(&left, pod),
            None => Record::new(pod, Timestamp::now()),
        };
        self.begin(folder, record);
    }

    /// A name is one pod's at a time: of whatever else had it here the API server has nothing more, though a list may say so
    /// only when it ends.
    fn succeed(&mut self, pod: &Pod) {
        let name = mirror::name(pod);
        let earlier = self.desired.iter().filter(|(_, desired)| {
            let other = &desired.borrow().pod;
            other.metadata.name == pod.metadata.name
                && mirror::name(other) == name
                && Origin::of(other) == Origin::Cluster
        });
        let earlier: Vec<String> = earlier.map(|(uid, _)| uid.clone()).collect();
        earlier.iter().for_each(|uid| self.remove(uid));
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        if let Some(desired) = self.desired.get(uid) {
            // Before its successor can ask for room.
            self.host.ledger.leave(uid);
            desired.send_modify(|desired| desired.removed = true);
        }
    }

    /// Ends a pod that has no API server to say so, within its own grace period or a shorter one.
    pub(crate) fn stop(&mut self, uid: &str, grace: Option<u64>, then: Then) {
        let Some(desired) = self.desired.get(uid) else { return };
        desired.send_modify(|desired| {
            desired.removed |= then == Then::Remove;
            let grace = grace.and_then(|grace| i64::try_from(grace).ok());
            if desired.pod.metadata.deletion_timestamp.is_some() && grace.is_none() {
                return;
            }
            let pod = Arc::make_mut(&mut desired.pod);
            pod.metadata.deletion_timestamp.get_or_insert(Time(Timestamp::now()));
            let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            pod.metadata.deletion_grace_period_seconds = grace.or(own);
            // The worker looks at what has another version than it had.
            let version = pod.metadata.resource_version.as_deref().unwrap_or_default();
            let version = version.parse::<u64>().unwrap_or_default().saturating_add(1);
            pod.metadata.resource_version = Some(version.to_string());
        });
        let pod = Arc::clone(&desired.borrow().pod);
        if let Origin::Static(_) = Origin::of(&pod) {
            self.mirror(&pod, true);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Run(mut pod) => {
                Origin::Hand.mark(&mut pod);
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if !uid.is_empty() && !self.desired.contains_key(&uid) {
                    self.take_on(Arc::from(pod));
                }
            }
            Order::Stop { uid, grace } => self.stop(&uid, grace, Then::Keep),
            Order::Remove { uid, grace } => self.stop(&uid, grace, Then::Remove),
        }
    }

    /// Has a pod ended in the node's own right.
    fn end(&mut self, uid: &str, failure: Failure) {
        if let Some(desired) = self.desired.get(uid) {
            desired.send_modify(|desired| desired.failure = Some(failure));
        }
    }

    pub(crate) fn begin(&mut self, folder: Folder, record: Record) {
        let meta = record.pod.metadata.clone();
        let uid = meta.uid.unwrap_or_default();
        let span = info_span!("pod", namespace = meta.namespace, name = meta.name, uid);
        let (sender, desired) = watch::channel(Desired {
            pod: Arc::clone(&record.pod),
            named: false,
            removed: false,
            failure: None,
        });
        if let Origin::Static(_) = Origin::of(&record.pod) {
            self.mirror(&record.pod, record.pod.metadata.deletion_timestamp.is_some());
        }
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

    /// Nothing is left of a pod: one that has waited for its name may begin.
    fn forget(&mut self, uid: &str) {
        let Some(desired) = self.desired.remove(uid) else { return };
        self.weigh();
        self.views.remove(uid);
        let pod = Arc::clone(&desired.borrow().pod);
        if let Origin::Static(_) = Origin::of(&pod) {
            self.mirrors.send_modify(|mirrors| {
                mirrors.pods.remove(&mirror::name(&pod));
            });
        }
        self.settle();
    }
}

/// What becomes of a pod that is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It stays, ended, until it is removed.
    Keep,
    /// Nothing of it is left.
    Remove,
}
