//! A pod's task: it alone changes the pod's record, starts and ends its containers, and says what became of them.
//!
//! `turn` acts, then `rest` waits for whatever may call for another turn. A turn never waits for anything slow: images are
//! fetched and sandboxes are watched by tasks of this worker's own, which answer with a [`Notice`]. The worker may be
//! dropped at any await; the next one looks at what there is and goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Api;
use nodule_sandbox_proto::{Cause, Exit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::events::Kind;
use crate::host::Host;
use crate::publish::{Known, Publisher, Wanted};
use crate::pull::{Outcome, Pulls};
use crate::record::{Folder, Phase, Record, Stop};
use crate::sandbox::{self, Found, Place, Sandbox};
use crate::status::{self, Seen, Waiting};
use crate::view::{LogEnds, View};

/// What the node is asked to do with a pod.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The API server has it no more.
    pub(crate) removed: bool,
}

/// What a task of the worker has to say.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The guest runs since then; or its sandbox ended before.
    Started { container: String, attempt: u32, at: Result<Option<i64>, sandbox::Error> },
    /// The process is gone, and this is on disk.
    Ended { container: String, attempt: u32, exit: Exit },
    /// The stop notice was given, or could not be.
    Told { container: String, result: Result<(), sandbox::Error> },
    /// The API server has nothing more to be told.
    Published,
}

/// An image that was fetched: its name, what became of it, and the wait that a failure earns.
pub(crate) type Fetched = (String, Outcome, Duration);

pub(crate) struct Worker {
    pub(crate) host: Arc<Host>,
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    /// The processes of the newest runs, by container.
    pub(crate) live: BTreeMap<String, Sandbox>,
    pub(crate) pulls: Pulls,
    /// Why containers whose turn it is do not run.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    pub(crate) fetches: JoinSet<Fetched>,
    pub(crate) tasks: JoinSet<Notice>,
    /// Containers that were given the stop notice by this worker.
    told: BTreeSet<String>,
    desired: watch::Receiver<Desired>,
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Known>,
    /// The newest status, published or not.
    status: Arc<PodStatus>,
    view: watch::Sender<View>,
    ends: LogEnds,
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
        let meta = &record.pod.metadata;
        let publisher = Publisher {
            api: Api::namespaced(host.client.clone(), meta.namespace.as_deref().unwrap_or_default()),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
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
        let worker = Self {
            host,
            folder,
            record,
            live: BTreeMap::new(),
            pulls: Pulls::default(),
            waiting: BTreeMap::new(),
            fetches: JoinSet::new(),
            tasks,
            told: BTreeSet::new(),
            desired,
            wanted,
            known,
            status,
            view,
            ends,
            due: Timestamp::MAX,
        };
        (worker, seen)
    }

    /// Acts on the pod until nothing of it is left.
    pub(crate) async fn run(mut self) {
        self.adopt().await;
        while self.record.phase != Phase::Gone {
            self.turn().await;
            if self.record.phase != Phase::Gone {
                self.rest().await;
            }
        }
    }

    async fn turn(&mut self) {
        self.due = crate::restart::later(Timestamp::now(), jittered(self.host.config.sync));
        self.look();
        self.descend();
        match self.record.phase {
            Phase::Syncing => self.sync().await,
            Phase::Terminating => self.terminate(),
            Phase::Terminated => self.clean().await,
            Phase::Gone => {}
        }
        self.tell();
    }

    async fn rest(&mut self) {
        let pause = Duration::try_from(self.due.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::select! {
            Ok(()) = self.desired.changed() => {}
            Ok(()) = self.known.changed() => {}
            Some(Ok(fetched)) = self.fetches.join_next() => self.fetched(fetched),
            Some(Ok(notice)) = self.tasks.join_next() => self.note(notice),
            () = sleep(pause) => {}
        }
        while let Some(Ok(notice)) = self.tasks.try_join_next() {
            self.note(notice);
        }
    }

    /// Asks for a turn at `moment` at the latest.
    pub(crate) fn wake_at(&mut self, moment: Timestamp) {
        self.due = self.due.min(moment);
    }

    /// Takes over what is desired now. The spec of a pod hardly changes, but its labels and its deletion do.
    fn look(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let meta = &desired.pod.metadata;
        if meta.resource_version != self.record.pod.metadata.resource_version {
            self.record.pod = Arc::clone(&desired.pod);
            self.save();
        }
    }

    /// Whether the API server has the pod no more.
    fn is_removed(&self) -> bool {
        self.desired.borrow().removed || self.known.borrow().gone
    }

    /// Moves the phase down as far as what is desired and what has happened say.
    fn descend(&mut self) {
        let asked = self.is_removed() || self.record.pod.metadata.deletion_timestamp.is_some();
        if asked {
            self.shorten();
        }
        if self.record.phase == Phase::Syncing && (asked || status::has_finished(&self.record)) {
            self.fetches = JoinSet::new();
            self.enter(Phase::Terminating);
        }
        if self.record.phase == Phase::Terminating && self.live.is_empty() {
            self.enter(Phase::Terminated);
        }
    }

    fn enter(&mut self, phase: Phase) {
        info!(?phase, "pod moves on");
        self.record.phase = phase;
        self.save();
    }

    /// The grace period only shrinks: from the first notice on, whatever is asked later. A pod that was removed by force
    /// has the least there is.
    fn shorten(&mut self) {
        const DEFAULT: i64 = 30;
        let meta = &self.record.pod.metadata;
        let asked = if self.is_removed() && meta.deletion_timestamp.is_none() {
            1
        } else {
            let spec = self.record.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            meta.deletion_grace_period_seconds.or(spec).unwrap_or(DEFAULT)
        };
        let grace = u64::try_from(asked).unwrap_or(0).max(1);
        let stop = self.record.stop.unwrap_or(Stop { since: Timestamp::now(), grace });
        let shorter = Stop { grace: stop.grace.min(grace), ..stop };
        if self.record.stop != Some(shorter) {
            self.record.stop = Some(shorter);
            self.save();
        }
    }

    /// Keeps the record. Without it nothing may be acted on, so a full disk shows as a pod that does not move.
    pub(crate) fn save(&self) -> bool {
        let saved = self.folder.save(&self.record);
        if let Err(error) = &saved {
            error!(error = error as &dyn std::error::Error, "pod record not kept");
        }
        saved.is_ok()
    }

    /// Stops what runs: first the notice, and when the grace is over the kill.
    fn terminate(&mut self) {
        /// The least that a container gets, whatever grace was asked for; the kubelet's `minimumGracePeriodInSeconds`.
        const LEAST: u64 = 2;
        let now = Timestamp::now();
        let stop = *self.record.stop.get_or_insert(Stop { since: now, grace: LEAST });
        let deadline = crate::restart::later(stop.since, Duration::from_secs(stop.grace.max(LEAST)));
        for (container, sandbox) in &self.live {
            if now >= deadline || stops_at_once(&self.record.pod) {
                sandbox.kill();
            }
            if !self.told.insert(container.clone()) {
                continue;
            }
            let message = format!("Stopping container {container}");
            let field = crate::order::Role::of(&self.record.pod, container).field(container);
            self.host.events.say(&self.record.pod, Some(field), Kind::Normal, "Killing", &message);
            let (container, sandbox) = (container.clone(), sandbox.clone());
            self.tasks.spawn(async move { Notice::Told { container, result: sandbox.stop().await } });
        }
        if now < deadline {
            self.wake_at(deadline);
        }
    }

    /// Gives back what the pod used, and lets go of it once the API server has.
    async fn clean(&mut self) {
        let folder = self.folder.clone();
        let removed = tokio::task::spawn_blocking(move || folder.remove_volumes()).await;
        if let Ok(Err(error)) = removed {
            warn!(error = &error as &dyn std::error::Error, "volumes not removed");
            return self.wake_at(crate::restart::later(Timestamp::now(), crate::restart::FIRST));
        }
        // Not on the publisher's word: until the watch has seen the removal, it may still name the pod.
        if !self.desired.borrow().removed {
            return;
        }
        let (folder, logs) = (self.folder.clone(), self.host.config.logs.join(crate::view::log_folder(&self.record.pod)));
        let sockets: Vec<_> = self.record.containers.keys().filter_map(|name| Some(self.place(name)?.socket)).collect();
        let removed = tokio::task::spawn_blocking(move || {
            for socket in sockets {
                // It may be gone since the sandbox ended; a next one of that name would replace it.
                let _ = std::fs::remove_file(socket);
            }
            crate::record::remove(&logs)?;
            folder.remove()
        });
        match removed.await {
            Ok(Ok(())) => {
                info!("pod is gone");
                self.record.phase = Phase::Gone;
            }
            Ok(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "pod not removed");
                self.wake_at(crate::restart::later(Timestamp::now(), crate::restart::FIRST));
            }
            Err(error) => error!(%error, "pod not removed"),
        }
    }

    /// Says what there is now: to the API server and to those who look on.
    fn tell(&mut self) {
        let status = Arc::new(status::status(
            &Seen {
                record: &self.record,
                waiting: &self.waiting,
                addresses: &self.host.config.addresses,
                now: Timestamp::now(),
            },
            &self.status,
        ));
        let settled = matches!(self.record.pod.status.as_ref().and_then(|known| known.phase.as_deref()), Some("Succeeded" | "Failed"));
        if !settled {
            self.status = status;
        }
        let delete = self.record.phase == Phase::Terminated && self.record.pod.metadata.deletion_timestamp.is_some();
        self.wanted.send_if_modified(|wanted| {
            let news = (!settled && wanted.status.as_ref() != Some(&self.status)) || wanted.delete != delete;
            if news {
                *wanted = Wanted { status: (!settled).then(|| Arc::clone(&self.status)), delete };
            }
            news
        });
        let view = View::of(&self.record, &self.status, &self.host.config.logs, &mut self.ends);
        self.view.send_replace(view);
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

    /// Finds again what an earlier agent started.
    async fn adopt(&mut self) {
        let open = self.record.containers.iter().filter(|(_, history)| {
            history.run.as_ref().is_some_and(|run| run.end.is_none() && !run.id.is_empty())
        });
        let names: Vec<String> = open.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(place) = self.place(&name) else { continue };
            let noted = self.record.run(&name).and_then(|run| run.process);
            match sandbox::find(&place, noted).await {
                Ok(Found::Alive(sandbox)) => {
                    info!(container = name, "container adopted");
                    self.attend(&name, sandbox);
                }
                Ok(Found::Ended(exit)) => self.end(&name, &exit),
                Ok(Found::Vanished) => self.vanish(&name),
                Ok(Found::Never) => debug!(container = name, "container was not started yet"),
                Err(error) => {
                    warn!(container = name, error = &error as &dyn std::error::Error, "container not found again");
                    self.vanish(&name);
                }
            }
        }
    }

    fn vanish(&mut self, container: &str) {
        let message = "The container could not be located when the agent looked for it";
        let exit = Exit::new(Cause::Killed, message, None, Timestamp::now().as_millisecond());
        self.end(container, &exit);
        if let Some(end) = self.record.run_mut(container).and_then(|run| run.end.as_mut()) {
            end.reason = Some("ContainerStatusUnknown".to_owned());
        }
        self.save();
    }

    /// Watches a sandbox from now on.
    pub(crate) fn attend(&mut self, container: &str, sandbox: Sandbox) {
        let Some(run) = self.record.run_mut(container) else { return };
        run.process = Some(sandbox.process());
        let attempt = run.attempt;
        let (name, process) = (container.to_owned(), sandbox.clone());
        self.tasks.spawn(async move { Notice::Started { container: name, attempt, at: process.started().await } });
        let (name, process) = (container.to_owned(), sandbox.clone());
        self.tasks.spawn(async move { Notice::Ended { container: name, attempt, exit: process.ended().await } });
        self.live.insert(container.to_owned(), sandbox);
    }

    fn fetched(&mut self, (image, outcome, wait): Fetched) {
        self.pulls.done(&image, outcome, wait, Timestamp::now());
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Started { container, attempt, at } => self.started(&container, attempt, at),
            Notice::Ended { container, attempt, exit } => {
                if self.record.run(&container).is_some_and(|run| run.attempt == attempt) {
                    self.end(&container, &exit);
                }
            }
            Notice::Told { container, result: Err(error) } => {
                debug!(container, error = &error as &dyn std::error::Error, "stop notice not given");
            }
            Notice::Told { result: Ok(()), .. } | Notice::Published => {}
        }
    }

    fn started(&mut self, container: &str, attempt: u32, at: Result<Option<i64>, sandbox::Error>) {
        let Some(run) = self.record.run_mut(container).filter(|run| run.attempt == attempt) else { return };
        match at {
            Ok(Some(at)) => {
                let first = run.started.is_none();
                run.started = Timestamp::from_millisecond(at).ok();
                if first {
                    self.say(container, Kind::Normal, "Started", "Container started");
                }
                self.save();
            }
            Ok(None) => {}
            Err(error) => {
                warn!(container, error = &error as &dyn std::error::Error, "sandbox does not answer: killed");
                if let Some(sandbox) = self.live.get(container) {
                    sandbox.kill();
                }
            }
        }
    }

    /// Notes a container's end, before anyone is told.
    fn end(&mut self, container: &str, exit: &Exit) {
        let at_once = stops_at_once(&self.record.pod) && self.record.phase == Phase::Terminating;
        let Some(run) = self.record.run_mut(container) else { return };
        let end = terminated(run.id.as_str(), run.started, exit, at_once);
        info!(container, code = end.exit_code, reason = end.reason, "container ended");
        run.started = run.started.or(end.started_at.as_ref().map(|time| time.0));
        run.end = Some(end);
        self.live.remove(container);
        self.ends.close(container);
        self.save();
    }

    /// Says an Event of a container.
    pub(crate) fn say(&self, container: &str, kind: Kind, reason: &'static str, message: &str) {
        let field = crate::order::Role::of(&self.record.pod, container).field(container);
        self.host.events.say(&self.record.pod, Some(field), kind, reason, message);
    }
}

/// Whether the pod's guests cannot make use of a grace period, and say so.
fn stops_at_once(pod: &Pod) -> bool {
    const ANNOTATION: &str = "nodule.dev/stop";
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "kill")
}

/// A container's end in the API's words.
fn terminated(id: &str, started: Option<Timestamp>, exit: &Exit, at_once: bool) -> ContainerStateTerminated {
    let time = |millis| Timestamp::from_millisecond(millis).ok().map(status::seconds);
    let (reason, code) = match exit.cause {
        Cause::Exited if exit.code == 0 => ("Completed", 0),
        Cause::Exited | Cause::Trapped => ("Error", exit.code),
        // Not killed after a grace that ran out, but ended in place of a SIGTERM: 128 + 15.
        Cause::Killed if at_once => ("Error", 143),
        Cause::Killed => ("Error", exit.code),
        Cause::OutOfMemory => ("OOMKilled", exit.code),
        Cause::StartFailed => ("StartError", exit.code),
    };
    ContainerStateTerminated {
        container_id: Some(status::container_id(id)),
        exit_code: i32::from(code),
        reason: Some(reason.to_owned()),
        message: (!exit.message.is_empty()).then(|| exit.message.clone()),
        started_at: exit.started_at.and_then(time).or(started.map(|time| Time(time))),
        finished_at: time(exit.finished_at),
        signal: None,
    }
}

/// Between the period and half as much again, so that pods do not all look at once.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::random_range(1.0..1.5))
}
