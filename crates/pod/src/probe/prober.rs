//! The task that asks one question of one container again and again, until the answer is another.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::debug;

use super::action::{Action, Asker, action, minor};
use super::tally::{Pace, Tally};
use super::{Attempt, Kind, Outcome, Series, exec, grpc, http, tcp};
use crate::events::{Events, Kind as Weight};

/// How often a question is put at once that the prober could not ask (the kubelet's `maxProbeRetries`).
const TRIES: u32 = 3;

/// One kind of probe of one container.
pub(crate) struct Prober {
    pub(crate) kind: Kind,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    /// The path of the container in its pod, for Events.
    pub(crate) field: String,
    pub(crate) events: Events,
    pub(crate) series: Arc<Series>,
    /// The pod's primary address.
    pub(crate) address: String,
    /// The kubelet's version that the node reports.
    pub(crate) version: String,
}

impl Prober {
    /// Asks, for the first time after `wait`, until what is found is not what was `known`, and says what it is now. May be
    /// dropped at any moment.
    pub(crate) async fn run(self, known: bool, wait: Duration) -> bool {
        let Some(probe) = self.kind.of(&self.container) else {
            return std::future::pending().await;
        };
        let pace = Pace::of(probe);
        let mut ticks = interval_at(Instant::now() + wait, pace.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tally = Tally::default();
        loop {
            ticks.tick().await;
            let Some(good) = self.ask(probe, pace.timeout).await else { continue };
            // A startup probe's success is news: before it nothing was known.
            let counted = tally.count(good, &pace);
            if let Some(found) =
                counted.filter(|found| self.kind == Kind::Startup || *found != known)
            {
                return found;
            }
        }
    }

    /// One question, put again where it could not be asked, and told of if the answer is not good. None if it could not be
    /// asked at all: that counts for nothing.
    async fn ask(&self, probe: &Probe, limit: Duration) -> Option<bool> {
        let start = Instant::now();
        let mut attempt = self.attempt(probe, limit).await;
        for _ in 1..TRIES {
            if attempt.is_ok() {
                break;
            }
            attempt = self.attempt(probe, limit).await;
        }
        let good = self.tell(attempt)?;
        match good {
            true => self.series.succeeded(start.elapsed()),
            false => self.series.failed(),
        }
        Some(good)
    }

    fn tell(&self, attempt: Attempt) -> Option<bool> {
        let title = self.kind.title();
        match attempt {
            Ok(Outcome::Success) => return Some(true),
            Ok(Outcome::Warning(said)) => {
                self.say("ProbeWarning", &format!("{title} probe warning: {said}"));
                return Some(true);
            }
            Ok(Outcome::Failure(said)) => {
                debug!(container = self.container.name, title, said, "probe failed");
                self.say("Unhealthy", &format!("{title} probe failed: {said}"));
                return Some(false);
            }
            Err(said) => {
                let said = format!("{title} probe errored and resulted in unknown state: {said}");
                self.say("Unhealthy", &said);
            }
        }
        None
    }

    async fn attempt(&self, probe: &Probe, limit: Duration) -> Attempt {
        let asker = Asker { address: &self.address, name: "kube-probe", version: &self.version };
        match action(probe, &self.container, asker)? {
            Action::Http(get) => {
                let late = || Ok(Outcome::Failure(http::timed_out(&get)));
                timeout(limit, http::probe(&get)).await.unwrap_or_else(|_| late())
            }
            Action::Tcp { host, port } => {
                let late = || Ok(Outcome::Failure(tcp::timed_out(&host, port)));
                timeout(limit, tcp::probe(&host, port)).await.unwrap_or_else(|_| late())
            }
            Action::Grpc { host, port, service, tls } => {
                let agent = format!("kube-probe/{}", minor(&self.version));
                let asked =
                    grpc::Check { host: &host, port, service: &service, agent: &agent, tls };
                let late = || Ok(Outcome::Failure(grpc::timed_out(limit)));
                timeout(limit, asked.probe()).await.unwrap_or_else(|_| late())
            }
            Action::Exec(command) => exec(&command),
        }
    }

    fn say(&self, reason: &'static str, message: &str) {
        let field = Some(self.field.clone());
        self.events.say(&self.pod, field, Weight::Warning, reason, message);
    }
}
