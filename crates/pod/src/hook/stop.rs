//! Before a container's end: what is said, its hook, the stop notice, the kill.

use std::time::Duration;

use jiff::Timestamp;

use super::Moment;
use crate::container_status::stop_signal;
use crate::ending::{kill_at, stops_at_once};
use crate::events::Kind;
use crate::notice::Notice;
use crate::record::Stop;
use crate::restart::later;
use crate::worker::Worker;

impl Worker {
    /// Stops the containers that are to end for their health's sake, and run again.
    pub(crate) fn halt(&mut self) {
        let halts: Vec<_> = self
            .live
            .keys()
            .filter_map(|name| Some((name.clone(), self.record.halt(name)?.clone())))
            .collect();
        for (name, halt) in halts {
            self.prepare(&name, halt.stop, &halt.message);
            self.stop(&name, halt.stop);
        }
    }

    /// Says that a container is stopped and has its preStop hook run, once for each run. The hook's time is taken from the
    /// grace; a container that has not started has nothing to prepare.
    pub(crate) fn prepare(&mut self, name: &str, stop: Stop, message: &str) {
        if self.hooks.has_begun(name, Moment::PreStop) {
            return;
        }
        self.say(name, Kind::Normal, "Killing", message);
        self.hooks.finish(name, Moment::PostStart);
        let due = Timestamp::now() < over(stop) && self.record.is_running(name);
        let container =
            self.named(name).filter(|container| due && Moment::PreStop.of(container).is_some());
        match container {
            Some(container) => self.hook(container, Moment::PreStop),
            None => self.hooks.begin(name, Moment::PreStop, None),
        }
    }

    /// Brings a prepared container to its end: the notice when its hook is done or the grace is over, the kill when the
    /// grace is over and the least time since the notice, too.
    pub(crate) fn stop(&mut self, name: &str, stop: Stop) {
        let stop = self.sooner(name, stop);
        let now = Timestamp::now();
        if self.hooks.is_running(name, Moment::PreStop) {
            if now < over(stop) {
                return self.wake_at(over(stop));
            }
            self.hooks.finish(name, Moment::PreStop);
        }
        let Some(sandbox) = self.live.get(name).cloned() else { return };
        let told = self.told.get(name).copied();
        let kill = kill_at(stop, told.unwrap_or(now));
        if now >= kill || self.dies_at_once(name) {
            sandbox.kill();
        } else {
            self.wake_at(kill);
        }
        if told.is_none() {
            self.told.insert(name.to_owned(), now);
            let container = name.to_owned();
            self.tasks
                .spawn(async move { Notice::Told { container, result: sandbox.stop().await } });
        }
    }

    /// Whether the container has no use of a notice.
    fn dies_at_once(&self, name: &str) -> bool {
        let container = self.named(name);
        let signal = container.as_ref().and_then(stop_signal).map(String::as_str);
        stops_at_once(&self.record.pod) || signal == Some("SIGKILL")
    }

    /// A pod that ends lengthens no stop that was begun.
    fn sooner(&self, name: &str, stop: Stop) -> Stop {
        let halt = self.record.halt(name).map(|halt| halt.stop);
        halt.filter(|halt| over(*halt) < over(stop)).unwrap_or(stop)
    }

    /// A run has ended: what was begun for its sake is broken off, and forgotten.
    pub(crate) fn settle_hooks(&mut self, container: &str) {
        self.hooks.forget(container);
        self.told.remove(container);
    }
}

/// When a grace period is over.
fn over(stop: Stop) -> Timestamp {
    later(stop.since, Duration::from_secs(stop.grace))
}
