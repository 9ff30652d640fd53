//! A pod and what happens to it, without the processes and the API server: the worker's steps on a real record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::rules::{self, Between};
use crate::failure::{Failure, Manner};
use crate::order;
use crate::phase::has_finished;
use crate::probe::health::Halt;
use crate::record::{Phase, Record, Stop};
use crate::restart::{LONGEST, Next, later};
use crate::run::Due;
use crate::status::{Seen, Waiting, container_id, seconds, status};

/// What a pod is made of: numbers say which policy of its own a container has.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) policy: String,
    pub(super) init: Vec<u8>,
    pub(super) regular: Vec<u8>,
    pub(super) probes: bool,
}

/// What can happen. Containers are meant by their place in the spec, modulo their number.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// The worker looks what is to be done: images are there or not, processes can be started or not.
    Turn {
        image: bool,
        launch: bool,
    },
    /// Seconds go by.
    Wait(u32),
    Start(usize),
    End(usize, i32),
    Probe {
        container: usize,
        started: bool,
        ready: bool,
    },
    /// The node ends a container for its liveness.
    Halt(usize),
    /// Somebody changes the pod's spec.
    Change,
    Delete,
    Fail(u8),
    /// The API server is told.
    Publish,
    /// What it has is seen again.
    Watch,
    AgentRestart,
}

/// A pod in the middle of its life.
pub(super) struct Play {
    record: Record,
    waiting: BTreeMap<String, Waiting>,
    live: BTreeSet<String>,
    names: Vec<String>,
    /// The newest status, as the worker has it.
    told: PodStatus,
    /// As the API server has it.
    shown: PodStatus,
    /// What has happened since.
    between: Between,
    /// Whether this agent has seen what that is.
    is_current: bool,
    generation: i64,
    deleted: bool,
    now: Timestamp,
    ids: u64,
}

fn container(name: &str, kind: u8, probes: bool) -> Value {
    let mut container = json!({"name": name, "image": "app:1"});
    let rule =
        |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [7]}}]);
    let (policy, rules) = match kind {
        0 => (None, None),
        1 => (Some("Always"), None),
        2 => (Some("Never"), Some(rule("Restart"))),
        3 => (Some("OnFailure"), None),
        _ => (Some("Never"), Some(rule("RestartAllContainers"))),
    };
    container["restartPolicy"] = json!(policy);
    container["restartPolicyRules"] = json!(rules);
    if probes {
        container["startupProbe"] = json!({});
        container["readinessProbe"] = json!({});
    }
    container
}

impl Play {
    pub(super) fn new(shape: &Shape) -> Self {
        let init: Vec<_> = (0..shape.init.len()).map(|n| format!("init{n}")).collect();
        // Not in the order of their names.
        let regular: Vec<_> = (0..shape.regular.len()).map(|n| format!("c{}", 9 - n)).collect();
        let list = |names: &[String], kinds: &[u8]| -> Vec<Value> {
            let made = names.iter().zip(kinds);
            made.map(|(name, kind)| {
                // A probe is no part of an init container that is no sidecar.
                let probes = shape.probes && (!name.starts_with("init") || *kind == 1);
                container(name, *kind, probes)
            })
            .collect()
        };
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"restartPolicy": shape.policy, "initContainers": list(&init, &shape.init),
                     "containers": list(&regular, &shape.regular)},
            "status": {"phase": "Pending"},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let shown = pod.status.clone().unwrap();
        Self {
            record: Record::new(Arc::new(pod), now),
            waiting: BTreeMap::new(),
            live: BTreeSet::new(),
            names: init.into_iter().chain(regular).collect(),
            told: shown.clone(),
            shown,
            between: Between::default(),
            is_current: true,
            generation: 1,
            deleted: false,
            now,
            ids: 0,
        }
    }

    /// Lets it happen and the worker tell; what rule that breaks, if one.
    pub(super) fn step(&mut self, event: &Event) -> Result<(), String> {
        // Something takes time, always, but not always a second.
        self.now = later(self.now, Duration::from_millis(400));
        match event {
            Event::Turn { image, launch } => self.turn(*image, *launch),
            Event::Wait(seconds) => {
                self.now = later(self.now, Duration::from_secs((*seconds).into()));
            }
            Event::Start(place) => self.start(&self.name(*place)),
            Event::End(place, code) => self.end(&self.name(*place), *code),
            Event::Probe { container, started, ready } => {
                self.probe(&self.name(*container), *started, *ready);
            }
            Event::Halt(place) => self.halt(&self.name(*place)),
            Event::Change => self.generation += 1,
            Event::Delete => self.deleted = true,
            Event::Fail(kind) => self.fail(*kind),
            Event::Publish => return self.publish(),
            Event::Watch => self.watch(),
            Event::AgentRestart => self.restart_agent(),
        }
        self.descend();
        self.tell()
    }

    fn name(&self, place: usize) -> String {
        self.names[place % self.names.len()].clone()
    }

    /// `Worker::descend`.
    fn descend(&mut self) {
        let asked =
            self.record.pod.metadata.deletion_timestamp.is_some() || self.record.failure.is_some();
        if self.record.phase == Phase::Syncing && (asked || has_finished(&self.record)) {
            self.record.phase = Phase::Terminating;
        }
        if self.record.phase == Phase::Terminating && self.live.is_empty() {
            self.record.phase = Phase::Terminated;
        }
    }

    /// `Worker::sync`.
    fn turn(&mut self, image: bool, launch: bool) {
        if self.record.phase != Phase::Syncing {
            return;
        }
        self.record.admitted = true;
        if self.record.restarting {
            // All are killed.
            for name in self.live.clone() {
                self.end(&name, 137);
            }
            self.record.begin_anew();
            self.between.anew = true;
        }
        for (role, container) in order::turn(&self.record) {
            let name = container.name.clone();
            if self.live.contains(&name) {
                self.waiting.remove(&name);
                continue;
            }
            let backoff = match self.record.due(role, &container, self.now, LONGEST) {
                Due::First(known) => known,
                Due::Again(_, Next::Now(backoff)) => Some(backoff),
                Due::Again(_, Next::At(..)) => {
                    self.hold(&name, "CrashLoopBackOff");
                    continue;
                }
                Due::Never => continue,
            };
            if !image {
                self.hold(&name, "ImagePullBackOff");
                continue;
            }
            self.ids += 1;
            let id = format!("{:016x}", self.ids);
            let new = self.record.begin(&container, id, "app@sha256:1".to_owned(), backoff);
            if new.is_some() {
                self.waiting.remove(&name);
            }
            if launch {
                self.live.insert(name);
            } else {
                self.hold(&name, "RunContainerError");
            }
        }
    }

    fn hold(&mut self, name: &str, reason: &'static str) {
        self.waiting.insert(name.to_owned(), Waiting { reason, message: String::new() });
    }

    fn start(&mut self, name: &str) {
        let is_new = self.record.run(name).is_some_and(|run| run.started.is_none());
        if self.live.contains(name) && is_new {
            self.record.started(name, Some(self.now));
        }
    }

    fn end(&mut self, name: &str, code: i32) {
        if !self.live.remove(name) {
            return;
        }
        let run = self.record.run(name).unwrap();
        let end = ContainerStateTerminated {
            container_id: Some(container_id(&run.id)),
            exit_code: code,
            reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
            started_at: run.started.map(Time),
            finished_at: Some(seconds(self.now)),
            ..ContainerStateTerminated::default()
        };
        self.record.close(name, end);
    }

    fn probe(&mut self, name: &str, started: bool, ready: bool) {
        let Some(attempt) = self.record.run(name).map(|run| run.attempt) else { return };
        if let Some(health) =
            self.record.health_mut(name, attempt).filter(|_| self.live.contains(name))
        {
            health.started |= started;
            health.ready = ready;
        }
    }

    fn halt(&mut self, name: &str) {
        let (since, now) = (self.now, self.record.run(name).map(|run| run.attempt));
        let Some(health) = now.and_then(|attempt| self.record.health_mut(name, attempt)) else {
            return;
        };
        health.halt = Some(Halt { stop: Stop { since, grace: 30 }, message: String::new() });
    }

    fn fail(&mut self, kind: u8) {
        if self.record.phase != Phase::Syncing || self.record.failure.is_some() {
            return;
        }
        self.record.failure = match kind {
            0 if !self.record.admitted => Some(Failure::rejected("OutOfpods", "full")),
            1 => Some(Failure::preempted()),
            2 => Some(Failure::evicted("too much".to_owned())),
            _ => None,
        };
    }

    /// `Worker::tell`.
    fn tell(&mut self) -> Result<(), String> {
        let known = self.record.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(known, Some("Succeeded" | "Failed")) {
            return Ok(());
        }
        let addresses = ["192.0.2.7".to_owned()];
        let seen = Seen {
            record: &self.record,
            waiting: &self.waiting,
            prepared: self.record.admitted,
            addresses: &addresses,
            now: self.now,
        };
        let next = status(&seen, &self.told);
        let open = self.live.iter().cloned().collect::<Vec<_>>();
        rules::alone(&next, &self.names, &open)?;
        let changed: BTreeSet<String> = rules::changed(&self.told, &next).collect();
        let between = Between { changed: changed.clone(), anew: self.between.anew };
        rules::after(&self.told, &next, &between)?;
        self.between.changed.extend(changed);
        self.between.anew &=
            next.phase.as_deref() != Some("Running") || self.told.phase == next.phase;
        self.told = next;
        Ok(())
    }

    /// What the API server gets is the newest; whatever it had before.
    fn publish(&mut self) -> Result<(), String> {
        if !self.is_current {
            return Ok(());
        }
        rules::after(&self.shown, &self.told, &self.between)?;
        self.between.changed.clear();
        self.shown.clone_from(&self.told);
        Ok(())
    }

    fn watch(&mut self) {
        if !std::mem::replace(&mut self.is_current, true) {
            self.told.clone_from(&self.shown);
        }
        let mut pod = (*self.record.pod).clone();
        pod.metadata.generation = Some(self.generation);
        if self.deleted {
            pod.metadata.deletion_timestamp.get_or_insert(seconds(self.now));
        }
        pod.status = Some(self.shown.clone());
        self.record.take_over(&Arc::new(pod));
    }

    /// The record as it is on disk; the processes run on.
    fn restart_agent(&mut self) {
        let text = serde_json::to_vec(&self.record).unwrap();
        self.record = serde_json::from_slice(&text).unwrap();
        self.waiting.clear();
        self.is_current = false;
        self.told = self.record.pod.status.clone().unwrap_or_default();
    }
}

/// Whether a pod was refused, of which there is nothing to tell but that.
pub(super) fn is_rejection(reason: Option<&str>) -> bool {
    let rejected = Failure::rejected("OutOfpods", "full");
    rejected.manner == Manner::Rejected && reason == Some(rejected.reason.as_str())
}
