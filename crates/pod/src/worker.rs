//! A pod's task: it alone changes the pod's record, starts and ends its containers, and says what became of them.
//!
//! `turn` acts, then `rest` waits for whatever may call for another turn. A turn never waits for anything slow: images are
//! fetched and sandboxes are watched by tasks of this worker's own, which answer with a [`Notice`]. The worker may be
//! dropped at any await; the next one looks at what there is and goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tracing::error;

use crate::admit::Reread;
use crate::clock::Clock;
use crate::condition;
use crate::events::Kind;
use crate::failure::Failure;
use crate::hook::Hooks;
use crate::host::Host;
use crate::mirror::{self, Mirrors};
use crate::notice::{Fetched, Notice};
use crate::objects::Follow;
use crate::probe::Probes;
use crate::publish::{Known, Publisher, Wanted};
use crate::pulls::Pulls;
use crate::record::{Folder, Phase, Record};
use crate::resize::Applying;
use crate::sandbox::{Place, Sandbox};
use crate::service::Services;
use crate::sink::Sink;
use crate::source::Origin;
use crate::status::Waiting;
use crate::view::{LogEnds, View};
use crate::volumes::{self};

/// What the node is asked to do with a pod.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The API server has named it since this agent began. What a pod of its own was told before is known from then on.
    pub(crate) named: bool,
    /// The API server has it no more.
    pub(crate) removed: bool,
    /// The node itself ends it.
    pub(crate) failure: Option<Failure>,
}

pub(crate) struct Worker {
    pub(crate) host: Arc<Host>,
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    /// The processes of the newest runs, by container.
    pub(crate) live: BTreeMap<String, Sandbox>,
    /// Containers whose process could not be looked for.
    pub(crate) unclear: BTreeSet<String>,
    pub(crate) pulls: Pulls,
    /// Why containers whose turn it is do not run.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    pub(crate) fetches: JoinSet<Fetched>,
    /// What the pod refers to, while it runs.
    pub(crate) follow: Follow,
    pub(crate) volumes: volumes::State,
    /// The images of its volumes.
    pub(crate) pictures: volumes::Pictures,
    /// Until they were listed, which starts wait for.
    services: watch::Receiver<Option<Services>>,
    pub(crate) tasks: JoinSet<Notice>,
    /// Containers that were given the stop notice by this worker, and when.
    pub(crate) told: BTreeMap<String, Timestamp>,
    pub(crate) hooks: Hooks,
    pub(crate) probes: Probes,
    pub(crate) applying: Applying,
    pub(crate) reread: Reread,
    /// Other pods have given back what they had of the node.
    freed: watch::Receiver<()>,
    pub(crate) desired: watch::Receiver<Desired>,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) known: watch::Receiver<Known>,
    /// The newest status, published or not.
    pub(crate) status: Arc<PodStatus>,
    /// Whether that follows what the API server shows: an agent of before may have told more than its record says.
    pub(crate) is_current: bool,
    /// Where a static pod is shown.
    mirrors: watch::Receiver<Mirrors>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) ends: LogEnds,
    due: Timestamp,
}

impl Worker {
    /// A worker for the pod that `record` speaks of, and the view that it keeps.
    pub(crate) fn new(
        host: Arc<Host>,
        folder: Folder,
        record: Record,
        desired: watch::Receiver<Desired>,
    ) -> (Self, watch::Receiver<View>) {
        let status = Arc::new(record.pod.status.clone().unwrap_or_default());
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (sender, known) = watch::channel(Known::default());
        let publisher = Publisher {
            sink: Sink::of(&host, &record.pod),
            told: String::new(),
            slots: Arc::clone(&host.slots),
            wanted: receiver,
            known: sender,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            publisher.run().await;
            Notice::Published
        });
        let mut ends = LogEnds::default();
        let (view, seen) = watch::channel(View::of(&record, &status, &host.config.logs, &mut ends));
        let (services, freed) = (host.services.clone(), host.ledger.freed());
        let mirrors = host.mirrors.clone();
        let worker = Self {
            host,
            folder,
            record,
            live: BTreeMap::new(),
            unclear: BTreeSet::new(),
            pulls: Pulls::default(),
            waiting: BTreeMap::new(),
            fetches: JoinSet::new(),
            follow: Follow::default(),
            volumes: volumes::State::default(),
            pictures: volumes::Pictures::default(),
            services,
            tasks,
            told: BTreeMap::new(),
            hooks: Hooks::default(),
            probes: Probes::new(Timestamp::now()),
            applying: Applying::default(),
            reread: Reread::default(),
            freed,
            desired,
            wanted,
            known,
            status,
            is_current: false,
            mirrors,
            view,
            ends,
            due: Timestamp::MAX,
        };
        (worker, seen)
    }

    /// Acts on the pod until nothing of it is left.
    pub(crate) async fn run(mut self) {
        self.adopt().await;
        self.watch_storage(Duration::ZERO);
        while self.record.phase != Phase::Gone {
            self.turn().await;
            if self.record.phase != Phase::Gone {
                self.rest().await;
            }
        }
    }

    async fn turn(&mut self) {
        self.due = crate::restart::later(Timestamp::now(), jittered(self.host.config.sync));
        self.keep_time(Clock::read());
        self.look();
        self.expire();
        if self.is_to_end() {
            self.find_lost().await;
        }
        self.descend();
        match self.record.phase {
            Phase::Syncing => {
                self.resize();
                self.renew();
                self.sync().await;
                self.post_start();
                self.halt();
            }
            Phase::Terminating => self.terminate(),
            Phase::Terminated => self.clean().await,
            Phase::Gone => {}
        }
        self.probe();
        self.tell();
    }

    async fn rest(&mut self) {
        let pause =
            Duration::try_from(self.due.duration_since(Timestamp::now())).unwrap_or_default();
        let waits = self.record.resize.pending.is_some();
        let is_listed = self.services.borrow().is_some();
        let is_unshown = self.is_static() && !self.is_current;
        tokio::select! {
            Ok(()) = self.desired.changed() => {}
            Ok(()) = self.known.changed() => {}
            () = self.follow.changed() => {}
            Ok(()) = self.freed.changed(), if waits => {}
            true = listed(&mut self.services), if !is_listed => {}
            Ok(()) = self.mirrors.changed(), if is_unshown => {}
            Some(joined) = self.fetches.join_next() => {
                if let Some(fetched) = whole(joined) {
                    self.fetched(fetched);
                }
            }
            Some(joined) = self.tasks.join_next() => {
                if let Some(notice) = whole(joined) {
                    self.note(notice);
                }
            }
            Some(joined) = self.probes.next() => {
                if let Some(probed) = whole(joined) {
                    self.probed(probed);
                }
            }
            () = sleep(pause) => {}
        }
        while let Some(joined) = self.tasks.try_join_next() {
            if let Some(notice) = whole(joined) {
                self.note(notice);
            }
        }
    }

    /// Asks for a turn at `moment` at the latest.
    pub(crate) fn wake_at(&mut self, moment: Timestamp) {
        self.due = self.due.min(moment);
    }

    /// Takes over what is desired now. The spec of a pod hardly changes, but its labels and its deletion do.
    fn look(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        if !self.is_current {
            self.recall(&desired);
        }
        let meta = &desired.pod.metadata;
        if meta.resource_version != self.record.pod.metadata.resource_version {
            self.record.take_over(&desired.pod);
            if self.record.resize.pending.is_none() {
                self.host.ledger.withdraw(self.uid());
            }
            self.save();
        }
        if let Some(failure) = desired.failure
            && self.record.failure.is_none()
            && self.record.phase == Phase::Syncing
        {
            self.fail(failure, Kind::Warning);
        }
    }

    /// Takes over what an agent of before has told. What this one has told nobody yet is forgotten, but for a static pod, which
    /// does not wait for the API server: of that its mirror knows since when it is so.
    fn recall(&mut self, desired: &Desired) {
        let told = if self.is_static() {
            let (name, mirrors) = (mirror::name(&desired.pod), self.mirrors.borrow_and_update());
            let mirror = mirrors.of(&name, self.folder.uid().as_str());
            mirror.map(|mirror| condition::aged(&self.status, mirror.status.as_ref()))
        } else {
            desired.named.then(|| desired.pod.status.clone().unwrap_or_default())
        };
        if let Some(told) = told {
            self.is_current = true;
            self.status = Arc::new(told);
        }
    }

    fn is_static(&self) -> bool {
        matches!(Origin::of(&self.record.pod), Origin::Static(_))
    }

    /// Whether the API server has the pod no more.
    pub(crate) fn is_removed(&self) -> bool {
        self.desired.borrow().removed || self.known.borrow().gone
    }

    /// Keeps the record. Without it nothing may be acted on, so a full disk shows as a pod that does not move.
    pub(crate) fn save(&self) -> bool {
        let saved = self.folder.save(&self.record);
        if let Err(error) = &saved {
            error!(error = error as &dyn std::error::Error, "pod record not kept");
        }
        saved.is_ok()
    }

    /// Where the newest run of a container has its state and its socket.
    pub(crate) fn place(&self, container: &str) -> Option<Place> {
        let run = self.record.run(container).filter(|run| !run.id.is_empty())?;
        let name = run.id.get(..16)?;
        Some(Place {
            state: self.folder.run(container, run.attempt),
            socket: self.host.config.run.join(format!("{name}.sock")),
        })
    }
}

/// Whether the services are listed now; false if nobody lists them any more.
async fn listed(services: &mut watch::Receiver<Option<Services>>) -> bool {
    services.wait_for(Option::is_some).await.is_ok()
}

/// What a task came to; none if it was dropped. Its panic is the worker's: a pod whose publisher or watcher is gone would
/// stand still without a word.
fn whole<T>(joined: Result<T, JoinError>) -> Option<T> {
    match joined {
        Ok(whole) => Some(whole),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// Between the period and half as much again, so that pods do not all look at once.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::random_range(1.0..1.5))
}
