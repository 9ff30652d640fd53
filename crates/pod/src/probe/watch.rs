//! A worker and its probes: which are asked now, and what follows from what they find.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::info;

use super::health::{Halt, Health};
use super::tally::Pace;
use super::{Kind, Prober, Series};
use crate::clock::moved;
use crate::ending::own_grace;
use crate::order::{self, Role};
use crate::record::{Phase, Record, Stop};
use crate::restart::{LONGEST, is_sidecar};
use crate::run::Due;
use crate::worker::Worker;

/// The probes of a pod that are asked.
pub(crate) struct Probes {
    tasks: JoinSet<Probed>,
    /// By container and kind: the run that is asked, and the task that does.
    running: BTreeMap<(String, Kind), (u32, AbortHandle)>,
    /// By container and kind: what is counted, over all of its runs.
    series: BTreeMap<(String, Kind), Arc<Series>>,
    /// When this worker began: what started before, another agent has started.
    since: Timestamp,
}

/// That a probe finds something else than before.
#[derive(Debug)]
pub(crate) struct Probed {
    container: String,
    attempt: u32,
    kind: Kind,
    good: bool,
}

impl Probes {
    pub(crate) fn new(since: Timestamp) -> Self {
        Self { tasks: JoinSet::new(), running: BTreeMap::new(), series: BTreeMap::new(), since }
    }

    /// The clock was set.
    pub(crate) fn move_by(&mut self, by: SignedDuration) {
        self.since = moved(self.since, by);
    }

    /// Waits for the next finding; none if nothing is asked. May be dropped: no finding is lost.
    pub(crate) async fn next(&mut self) -> Option<Result<Probed, JoinError>> {
        self.tasks.join_next().await
    }
}

impl Worker {
    /// Sees that what runs is probed as it should be now, and nothing else.
    pub(crate) fn probe(&mut self) {
        let wanted = self.wanted();
        self.probes.running.retain(|key, (attempt, task)| {
            let keep = wanted.get(key) == Some(attempt);
            if !keep {
                task.abort();
            }
            keep
        });
        self.probes
            .series
            .retain(|(container, kind), _| is_counted(&self.record, container, *kind));
        for ((container, kind), attempt) in wanted {
            if !self.probes.running.contains_key(&(container.clone(), kind)) {
                self.ask(&container, kind, attempt, None);
            }
        }
    }

    /// The probes to be asked, each with the run that it is for. A container that has to start is asked for nothing else;
    /// of one that has to end it still counts whether it is ready.
    fn wanted(&self) -> BTreeMap<(String, Kind), u32> {
        let mut wanted = BTreeMap::new();
        for name in self.live.keys() {
            let Some(container) = self.named(name) else { continue };
            let Some(attempt) = self.record.run(name).map(|run| run.attempt) else { continue };
            for kind in Kind::ALL {
                if kind.of(&container).is_some() && self.is_wanted(&container, kind) {
                    wanted.insert((name.clone(), kind), attempt);
                }
            }
        }
        wanted
    }

    fn is_wanted(&self, container: &Container, kind: Kind) -> bool {
        let stays =
            self.record.phase == Phase::Syncing && self.record.halt(&container.name).is_none();
        match kind {
            Kind::Startup => {
                stays && self.record.is_hooked(container) && !self.record.is_started(container)
            }
            Kind::Liveness => stays && self.record.is_started(container),
            Kind::Readiness => self.record.is_started(container),
        }
    }

    /// Asks from now on, for the first time after `wait` or when the probe says.
    fn ask(&mut self, name: &str, kind: Kind, attempt: u32, wait: Option<Duration>) {
        let Some(container) = self.named(name) else { return };
        let Some(pace) = kind.of(&container).map(Pace::of) else { return };
        let run = self.record.run(name);
        let Some(started) = run.and_then(|run| Some(moved(run.started?, run.set))) else { return };
        let known = match kind {
            Kind::Startup => false,
            Kind::Liveness => true,
            Kind::Readiness => self.record.is_ready(&container),
        };
        let part = (started < self.probes.since).then(|| rand::random_range(0.0..1.0));
        let wait = wait.unwrap_or_else(|| pace.first(started, Timestamp::now(), part));
        let prober = Prober {
            kind,
            pod: Arc::clone(&self.record.pod),
            field: Role::of(&self.record.pod, name).field(name),
            container,
            events: self.host.events.clone(),
            series: self.series(name, kind),
            address: self.address(),
            version: self.host.config.version.clone(),
        };
        let container = name.to_owned();
        let task = self.probes.tasks.spawn(async move {
            Probed { container, attempt, kind, good: prober.run(known, wait).await }
        });
        self.probes.running.insert((name.to_owned(), kind), (attempt, task));
    }

    fn series(&mut self, container: &str, kind: Kind) -> Arc<Series> {
        let (metrics, pod) = (&self.host.metrics.probes, &self.record.pod);
        let new = || Arc::new(metrics.series(pod, container, kind));
        let known = self.probes.series.entry((container.to_owned(), kind));
        Arc::clone(known.or_insert_with(new))
    }

    /// Takes over what is known of a run whose record says nothing of its health.
    pub(crate) fn recall_health(&mut self, container: &str) {
        let pod = Arc::clone(&self.record.pod);
        let Some(history) = self.record.containers.get_mut(container) else { return };
        if let (Some(run), None) = (&history.run, &history.health) {
            history.health = Some(Health::recalled(pod.status.as_ref(), &run.id));
        }
    }

    /// The container of this name as the pod's spec has it.
    pub(crate) fn named(&self, name: &str) -> Option<Container> {
        order::find(&self.record.pod, name).map(|(_, container)| container)
    }

    /// The pod's primary address; in `shared` mode it is the node's.
    pub(crate) fn address(&self) -> String {
        self.host.config.addresses.first().cloned().unwrap_or_default()
    }

    /// Notes what a probe finds, and does what follows.
    pub(crate) fn probed(&mut self, probed: Probed) {
        let Probed { container, attempt, kind, good } = probed;
        let key = (container.clone(), kind);
        // One that was called off meanwhile says nothing any more.
        if self.probes.running.get(&key).is_none_or(|(asked, _)| *asked != attempt) {
            return;
        }
        self.probes.running.remove(&key);
        info!(container, probe = kind.word(), good, "probe finds a change");
        let Some(health) = self.record.health_mut(&container, attempt) else { return };
        match (kind, good) {
            (Kind::Startup, true) => health.started = true,
            (Kind::Readiness, good) => health.ready = good,
            (Kind::Startup | Kind::Liveness, false) => self.give_up(&container, kind, attempt),
            (Kind::Liveness, true) => {}
        }
        self.save();
        if kind == Kind::Readiness {
            let period = self
                .named(&container)
                .and_then(|container| kind.of(&container).map(|probe| Pace::of(probe).period));
            self.ask(&container, kind, attempt, period);
        }
    }

    /// Has a container stopped that its probe has given up.
    fn give_up(&mut self, name: &str, kind: Kind, attempt: u32) {
        let Some(container) = self.named(name) else { return };
        let probe = kind.of(&container);
        let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
        let grace = own.and_then(|own| u64::try_from(own).ok());
        let grace = grace.unwrap_or_else(|| own_grace(&self.record.pod));
        let message = said(&self.record.pod, &container, kind);
        let stop = Stop { since: Timestamp::now(), grace };
        if let Some(health) = self.record.health_mut(name, attempt) {
            health.halt = Some(Halt { stop, message });
        }
    }
}

/// Whether a probe goes on being counted: not if it is never asked again, as the pod ends or the container has ended for good
/// (the kubelet's prober `worker`).
fn is_counted(record: &Record, name: &str, kind: Kind) -> bool {
    let Some((role, container)) = order::find(&record.pod, name) else { return false };
    let due = record.due(role, &container, Timestamp::now(), LONGEST);
    let last = if kind == Kind::Readiness { Phase::Terminating } else { Phase::Syncing };
    record.phase <= last && due != Due::Never
}

/// The Event of a container that is stopped for its probe's sake, in the kubelet's words.
fn said(pod: &k8s_openapi::api::core::v1::Pod, container: &Container, kind: Kind) -> String {
    let (name, kind) = (&container.name, kind.word());
    if Role::of(pod, name) == Role::Init {
        return format!("Init container {name} failed {kind} probe");
    }
    let pods = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let policy = container.restart_policy.as_deref().or(pods);
    let again = is_sidecar(container) || policy != Some("Never");
    let rest = if again { ", will be restarted" } else { "" };
    format!("Container {name} failed {kind} probe{rest}")
}
