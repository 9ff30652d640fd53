use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use crate::{
    Inputs, Outputs,
    backoff::Retry,
    conditions::{READY, transition},
    config::Config,
    events::{Events, Weight},
    gauge::Gauge,
    machine::Machine,
    object::{Facts, Wanted},
    server::{Failure, Server},
};

const REGISTER: &str = "register node";
const STATUS: &str = "write node status";
const WATCH: &str = "watch node";

/// The task that owns the Node object: it makes it, watches it, and writes its status.
pub(crate) struct Report {
    server: Server,
    nodes: Api<Node>,
    config: Arc<Config>,
    machine: Machine,
    inputs: Inputs,
    events: Events,
    /// The Node as the API server last showed it, for the rest of the agent and for this task. `None`: there is none.
    registered: watch::Sender<Option<Arc<Node>>>,
    watched: BoxStream<'static, watcher::Result<watcher::Event<Node>>>,
    /// Whether the list that the watch began with has shown the Node.
    listed: bool,
    /// Changes when the API server does again what it had not done: the watch may not have noticed that it was away.
    recovered: watch::Receiver<()>,
    gauge: Gauge,
    /// What was written last, and how the API server showed it. `None`: it must be written.
    written: Option<Written>,
    /// Whether the Node must be read before it is written: the last write failed.
    stale: bool,
    /// Whether the node has been Ready.
    ready: bool,
    /// When the status is written even if nothing has changed.
    due: Instant,
}

/// Both without times. The second differs from the first where the API server has its own mind.
struct Written {
    wanted: Wanted,
    shown: Wanted,
}

impl Report {
    pub(crate) fn new(
        server: Server,
        config: Arc<Config>,
        inputs: Inputs,
        outputs: Outputs,
        events: Events,
    ) -> Self {
        let nodes = Api::<Node>::all(server.client.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={}", config.name));
        let watched = watcher(nodes.clone(), only).backoff(Retry::new(&config.periods)).boxed();
        let recovered = server.reach.recovered();
        let gauge = Gauge::new(Arc::clone(&config), outputs.starved);
        Self {
            server,
            nodes,
            config,
            machine: Machine::read(),
            inputs,
            events,
            registered: outputs.registered,
            watched,
            listed: false,
            recovered,
            gauge,
            written: None,
            stale: false,
            ready: false,
            due: Instant::now(),
        }
    }

    /// Registers, reports until the Node is gone, and begins again.
    pub(crate) async fn run(mut self) -> Infallible {
        self.events.note(Weight::Normal, "Starting", "Starting nodule.".to_owned());
        loop {
            self.register().await;
            self.report().await;
        }
    }

    async fn register(&mut self) {
        let mut retry = Retry::new(&self.config.periods);
        while let Err(failure) = self.create().await {
            self.server.reach.failed(REGISTER, &failure);
            sleep(retry.wait().max(failure.retry_after())).await;
        }
        self.server.reach.worked(REGISTER);
    }

    /// Creates the Node, or takes the one that is there. A node that may not create may still have been made by someone.
    async fn create(&mut self) -> Result<(), Failure> {
        self.gauge.measure().await;
        let wanted = self.wanted();
        let node = wanted.node(&self.config);
        let refusal = match self.server.ask(self.nodes.create(&PostParams::default(), &node)).await
        {
            Ok(node) => {
                info!(node = self.config.name, "node registered");
                self.written(&wanted, &[], node);
                return Ok(());
            }
            Err(failure) if failure.is_conflict() || failure.is_forbidden() => failure,
            Err(failure) => return Err(failure),
        };
        let found = self.server.ask(self.nodes.get_opt(&self.config.name)).await?;
        self.adopt(found.ok_or(refusal)?);
        Ok(())
    }

    /// The Node is an earlier agent's: its status is written in any case.
    fn adopt(&mut self, node: Node) {
        let status = node.status.as_ref();
        let boot = status
            .and_then(|status| status.node_info.as_ref())
            .map_or("", |info| info.boot_id.as_str());
        let ours = &self.machine.boot_id;
        if !boot.is_empty() && boot != ours {
            let message = format!("Node {} has been rebooted, boot id: {ours}", self.config.name);
            self.events.note(Weight::Warning, "Rebooted", message);
        }
        info!(node = self.config.name, "node was registered before");
        self.written = None;
        self.registered.send_replace(Some(Arc::new(node)));
    }

    /// Keeps the status true for as long as there is a Node.
    async fn report(&mut self) {
        let mut retry = Retry::new(&self.config.periods);
        while self.is_registered() {
            // Whatever the API server says: pods are evicted without it, too.
            self.gauge.measure().await;
            match self.sync().await {
                Ok(()) => {
                    self.server.reach.worked(STATUS);
                    retry = Retry::new(&self.config.periods);
                    if self.is_registered() {
                        self.rest().await;
                    }
                }
                Err(failure) => {
                    self.server.reach.failed(STATUS, &failure);
                    self.stale = true;
                    self.wait(retry.wait().max(failure.retry_after())).await;
                }
            }
        }
    }

    /// Waits for so long, and measures meanwhile.
    async fn wait(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep_until(until.min(self.gauge.due())).await;
            self.gauge.measure().await;
        }
    }

    /// Writes the status if it has changed, here or there, or if it was not written for long.
    async fn sync(&mut self) -> Result<(), Failure> {
        if self.stale {
            self.refresh().await?;
        }
        if !self.is_registered() {
            return Ok(());
        }
        let wanted = self.wanted();
        if self.unchanged(&wanted) && Instant::now() < self.due {
            return Ok(());
        }
        let previous = self.conditions();
        let patch = Patch::Strategic(wanted.patch());
        match self
            .server
            .ask(self.nodes.patch_status(&self.config.name, &PatchParams::default(), &patch))
            .await
        {
            Ok(node) => self.written(&wanted, &previous, node),
            Err(failure) if failure.is_not_found() => self.lost(),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Reads the Node, which may not be as it was.
    async fn refresh(&mut self) -> Result<(), Failure> {
        let found = self.server.ask(self.nodes.get_opt(&self.config.name)).await?;
        self.stale = false;
        match found {
            Some(node) => self.shown(node),
            None => self.lost(),
        }
        Ok(())
    }

    /// Whether the API server shows what was last written, and that is what is wanted.
    fn unchanged(&self, wanted: &Wanted) -> bool {
        let Some(written) = &self.written else { return false };
        let node = self.registered.borrow();
        let shown = node.as_deref().map(|node| wanted.seen(node));
        written.wanted == wanted.clone().timeless() && shown.as_ref() == Some(&written.shown)
    }

    /// The status as it is now.
    fn wanted(&mut self) -> Wanted {
        let (measure, shortage) = self.gauge.last();
        let facts = Facts {
            machine: &self.machine,
            measure: &measure,
            shortage,
            problems: &self.inputs.problems.borrow_and_update().clone(),
            unconfined: &self.inputs.unconfined.borrow_and_update().clone(),
            images: &self.inputs.images.borrow_and_update().clone(),
        };
        Wanted::new(&self.config, &facts, &self.conditions(), &now())
    }

    fn conditions(&self) -> Vec<NodeCondition> {
        let node = self.registered.borrow();
        node.as_ref().and_then(|node| node.status.as_ref()?.conditions.clone()).unwrap_or_default()
    }

    fn written(&mut self, wanted: &Wanted, previous: &[NodeCondition], node: Node) {
        self.tell(wanted, previous);
        self.written =
            Some(Written { wanted: wanted.clone().timeless(), shown: wanted.seen(&node) });
        self.ready |= wanted.ready();
        self.due =
            Instant::now() + self.config.periods.report.mul_f64(rand::random_range(0.5..=1.5));
        self.registered.send_replace(Some(Arc::new(node)));
    }

    /// Events and log lines for the conditions whose status is not what it was.
    fn tell(&self, wanted: &Wanted, previous: &[NodeCondition]) {
        for condition in wanted.status.conditions.iter().flatten() {
            let same = |old: &NodeCondition| {
                old.type_ == condition.type_ && old.status == condition.status
            };
            let Some(reason) = transition(condition).filter(|_| !previous.iter().any(same)) else {
                continue;
            };
            let message = format!("Node {} status is now: {reason}", self.config.name);
            self.events.note(Weight::Normal, reason, message);
            if condition.type_ == READY && condition.status == "True" {
                info!(node = self.config.name, "node is ready");
            } else if condition.type_ == READY {
                warn!(node = self.config.name, problems = condition.message, "node is not ready");
            } else if condition.status == "True" {
                warn!(
                    node = self.config.name,
                    condition = condition.type_,
                    message = condition.message,
                    "node is short of something: it takes no ordinary pods"
                );
            }
        }
    }

    /// Until it is time to look again: a while has passed, or something is not as it was. No arm loses anything when
    /// another wins: `changed` and `next` may be dropped, and what they would have said is still there next time.
    async fn rest(&mut self) {
        let periods = &self.config.periods;
        let (period, gap) = if self.ready {
            (periods.update, periods.gap)
        } else {
            (periods.startup, periods.startup)
        };
        let now = Instant::now();
        let (soonest, latest) = (now + gap.min(period), self.gauge.due().min(now + period));
        tokio::select! {
            () = sleep_until(latest) => {}
            Ok(()) = self.inputs.problems.changed() => {}
            Ok(()) = self.inputs.unconfined.changed() => {}
            Ok(()) = self.inputs.images.changed() => {}
            Ok(()) = self.recovered.changed() => self.stale = true,
            Some(event) = self.watched.next() => self.observe(event),
        }
        sleep_until(soonest).await;
        while let Some(Some(event)) = self.watched.next().now_or_never() {
            self.observe(event);
        }
    }

    fn observe(&mut self, event: watcher::Result<watcher::Event<Node>>) {
        match &event {
            Ok(_) => self.server.reach.worked(WATCH),
            Err(error) => self.server.reach.failed(WATCH, error),
        }
        match event {
            Ok(watcher::Event::Init) => self.listed = false,
            Ok(watcher::Event::InitApply(node)) => {
                self.listed = true;
                self.shown(node);
            }
            Ok(watcher::Event::Apply(node)) => self.shown(node),
            Ok(watcher::Event::InitDone) if !self.listed => self.lost(),
            Ok(watcher::Event::Delete(node)) if self.is_current(&node) => self.lost(),
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) | Err(_) => {}
        }
    }

    /// The API server shows the Node. What is older than an answer that was seen already is passed over.
    fn shown(&mut self, node: Node) {
        let version = |node: &Node| node.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        let known = self.registered.borrow().as_deref().and_then(version);
        if known.zip(version(&node)).is_none_or(|(known, new)| known <= new) {
            self.registered.send_replace(Some(Arc::new(node)));
        }
    }

    fn is_registered(&self) -> bool {
        self.registered.borrow().is_some()
    }

    fn is_current(&self, node: &Node) -> bool {
        self.registered
            .borrow()
            .as_deref()
            .is_some_and(|known| known.metadata.uid == node.metadata.uid)
    }

    /// Somebody deleted the Node. It is made again.
    fn lost(&mut self) {
        warn!(node = self.config.name, "node object is gone; registering again");
        self.written = None;
        self.stale = false;
        self.registered.send_replace(None);
    }
}

/// Conditions carry whole seconds.
fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
