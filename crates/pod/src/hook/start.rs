//! After a container's start: its hook, which holds back the containers after it, and what follows where that fails.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use tracing::{info, warn};

use super::Moment;
use super::run::{Failed, Hook};
use crate::ending::own_grace;
use crate::events::Kind;
use crate::notice::Notice;
use crate::probe::health::Halt;
use crate::record::Stop;
use crate::restart::{FIRST, later};
use crate::status::Waiting;
use crate::worker::Worker;

impl Worker {
    /// Runs the postStart hooks of the containers that have started.
    pub(crate) fn post_start(&mut self) {
        let names: Vec<String> = self.live.keys().cloned().collect();
        for name in names {
            let Some(container) = self.named(&name) else { continue };
            let due = Moment::PostStart.of(&container).is_some()
                && self.record.is_running(&name)
                && !self.record.is_hooked(&container)
                && self.record.halt(&name).is_none();
            if due && !self.hooks.has_begun(&name, Moment::PostStart) {
                self.hook(container, Moment::PostStart);
            }
        }
    }

    /// Whether the container holds back those after it: it is about to start, and its postStart hook is not done. One that
    /// waits for something else than its turn holds back nobody.
    pub(crate) fn holds_back(&self, container: &Container) -> bool {
        let name = &container.name;
        if Moment::PostStart.of(container).is_none() || self.waiting.contains_key(name) {
            return false;
        }
        let ended = self.record.counted(name).is_some_and(|run| run.end.is_some());
        !ended && !self.record.is_hooked(container)
    }

    /// Begins a hook, whose end is a [`Notice::Hooked`].
    pub(super) fn hook(&mut self, container: Container, moment: Moment) {
        let name = container.name.clone();
        let Some(attempt) = self.record.run(&name).map(|run| run.attempt) else { return };
        info!(container = name, ?moment, "hook begins");
        let hook = Hook {
            moment,
            pod: Arc::clone(&self.record.pod),
            container,
            events: self.host.events.clone(),
            address: self.address(),
            version: self.host.config.version.clone(),
        };
        let container = name.clone();
        let task = self.tasks.spawn(async move {
            Notice::Hooked { container, attempt, moment, result: hook.run().await }
        });
        self.hooks.begin(&name, moment, Some(task));
    }

    /// Notes how a hook ended.
    pub(crate) fn hooked(
        &mut self,
        container: &str,
        attempt: u32,
        moment: Moment,
        result: Result<(), Failed>,
    ) {
        let newest = self.record.run(container).is_some_and(|run| run.attempt == attempt);
        if !newest || !self.hooks.is_running(container, moment) {
            return;
        }
        self.hooks.finish(container, moment);
        if let Err(failed) = &result {
            warn!(container, ?moment, message = failed.message, "hook failed");
            let (reason, title) = match moment {
                Moment::PostStart => ("FailedPostStartHook", "PostStartHook failed"),
                Moment::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
            };
            let rest = failed.event.as_ref().map(|event| format!(": {event}"));
            let message = format!("{title}{}", rest.unwrap_or_default());
            self.say(container, Kind::Warning, reason, &message);
        }
        if moment == Moment::PostStart {
            self.settle_start(container, attempt, result);
        }
    }

    fn settle_start(&mut self, container: &str, attempt: u32, result: Result<(), Failed>) {
        let grace = own_grace(&self.record.pod);
        let Some(health) = self.record.health_mut(container, attempt) else { return };
        match result {
            Ok(()) => health.hooked = true,
            Err(failed) => {
                let stop = Stop { since: Timestamp::now(), grace };
                health.failed = Some(failed.message);
                health.halt = Some(Halt { stop, message: "FailedPostStartHook".to_owned() });
            }
        }
        self.save();
    }

    /// Whether a container that is to run again still shows that its hook failed: for ten seconds, which is what the kubelet
    /// takes to try again.
    pub(crate) fn shows_failed_hook(&mut self, container: &str, finished: Timestamp) -> bool {
        let health = self.record.containers.get(container).and_then(|all| all.health.as_ref());
        let Some(message) = health.and_then(|health| health.failed.clone()) else { return false };
        let due = later(finished, FIRST);
        if Timestamp::now() >= due {
            return false;
        }
        let waiting = Waiting { reason: "PostStartHookError", message };
        self.waiting.insert(container.to_owned(), waiting);
        self.wake_at(due);
        true
    }
}
