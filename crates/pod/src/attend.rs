//! A worker and its containers' processes: found again, watched, and their ends noted before anyone is told.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nodule_sandbox_proto::{Cause, Exit, Started, State};
use tracing::{debug, info, warn};

use crate::ending::stops_at_once;
use crate::epilogue;
use crate::events::Kind;
use crate::find::{self, Found};
use crate::links::Links;
use crate::notice::Notice;
use crate::order;
use crate::record::Phase;
use crate::resize::resources;
use crate::sandbox::{self, Place, Sandbox};
use crate::status;
use crate::view::log_path;
use crate::worker::Worker;

impl Worker {
    /// Finds again what an earlier agent started.
    pub(crate) async fn adopt(&mut self) {
        let open = self.record.containers.iter().filter(|(_, history)| {
            history.run.as_ref().is_some_and(|run| run.end.is_none() && !run.id.is_empty())
        });
        let names: Vec<String> = open.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.recall_health(&name);
            self.recall_resources(&name);
            self.recover(&name).await;
        }
    }

    /// A run of which an agent of before has not noted what it was given has what its pod had.
    fn recall_resources(&mut self, name: &str) {
        let given = order::find(&self.record.pod, name).map(|(_, container)| resources(&container));
        if let Some(run) = self.record.run_mut(name) {
            run.resources = run.resources.take().or(given);
        }
    }

    /// Looks for the processes of runs that this worker has no hold of: those of a start whose outcome nobody could say. None
    /// of them may outlive its pod.
    pub(crate) async fn find_lost(&mut self) {
        let open = self.record.containers.iter().filter(|(name, history)| {
            let lost =
                history.run.as_ref().is_some_and(|run| run.end.is_none() && !run.id.is_empty());
            lost && !self.live.contains_key(*name)
        });
        let names: Vec<String> = open.map(|(name, _)| name.clone()).collect();
        for name in names {
            let begun = |place: &Place| State::new(&place.state).has_container();
            if self.place(&name).as_ref().is_some_and(begun) {
                self.recover(&name).await;
            }
        }
    }

    /// Takes up the newest run of a container where it stands. False if no instruction of its guest was ever run. Where it
    /// cannot be looked for now, nothing is started in its place: it is looked for again.
    pub(crate) async fn recover(&mut self, name: &str) -> bool {
        let Some(place) = self.place(name) else { return false };
        self.unclear.remove(name);
        let noted = self.record.run(name).and_then(|run| run.process);
        match find::find(&place, noted).await {
            Ok(Found::Alive(sandbox)) => {
                info!(container = name, "container adopted");
                self.attend(name, sandbox);
                self.save();
            }
            Ok(Found::Ended(exit)) => self.end(name, &exit),
            Ok(Found::Vanished) => self.vanish(name),
            Ok(Found::Never) => {
                debug!(container = name, "container was not started yet");
                return false;
            }
            Err(error) => {
                warn!(
                    container = name,
                    error = &error as &dyn std::error::Error,
                    "container cannot be looked for: tried again"
                );
                self.unclear.insert(name.to_owned());
                self.again();
            }
        }
        true
    }

    fn vanish(&mut self, container: &str) {
        let message = "The container could not be located when the agent looked for it";
        let exit = Exit::new(Cause::Killed, message, None, Timestamp::now().as_millisecond());
        self.end(container, &exit);
        if let Some(end) = self.record.run_mut(container).and_then(|run| run.end.as_mut()) {
            unknown(end);
        }
        self.save();
    }

    /// Watches a sandbox from now on.
    pub(crate) fn attend(&mut self, container: &str, sandbox: Sandbox) {
        let Some(run) = self.record.run_mut(container) else { return };
        run.process = Some(sandbox.process());
        let attempt = run.attempt;
        let (name, process) = (container.to_owned(), sandbox.clone());
        self.tasks.spawn(async move {
            Notice::Started { container: name, attempt, seen: process.started().await }
        });
        let (name, process) = (container.to_owned(), sandbox.clone());
        self.tasks.spawn(async move {
            Notice::Ended { container: name, attempt, exit: process.ended().await }
        });
        self.link(container);
        self.live.insert(container.to_owned(), sandbox);
    }

    /// Has the link made that log collectors look for.
    fn link(&mut self, container: &str) {
        let Some(run) = self.record.run(container) else { return };
        let (id, attempt) = (run.id.clone(), run.attempt);
        let (links, pod) = (Links::new(&self.host.config), Arc::clone(&self.record.pod));
        let container = container.to_owned();
        self.tasks.spawn_blocking(move || {
            let result = links.make(&pod, &container, &id, attempt);
            Notice::Linked { container, result }
        });
    }

    pub(crate) fn started(
        &mut self,
        container: &str,
        attempt: u32,
        seen: Result<Option<Started>, sandbox::Error>,
    ) {
        if self.record.run(container).is_none_or(|run| run.attempt != attempt) {
            return;
        }
        match seen {
            Ok(Some(started)) => self.begun(container, &started),
            Ok(None) => {}
            Err(error @ sandbox::Error::Version { .. }) => self.foreign(container, &error),
            Err(error) => {
                warn!(
                    container,
                    error = &error as &dyn std::error::Error,
                    "sandbox does not answer: killed"
                );
                if let Some(sandbox) = self.live.get(container) {
                    sandbox.kill();
                }
            }
        }
    }

    fn begun(&mut self, container: &str, started: &Started) {
        let at = Timestamp::from_millisecond(started.at).ok();
        let first = self.record.started(container, at);
        self.host.layers.miss(&started.missing);
        if first {
            self.say(container, Kind::Normal, "Started", "Container started");
        }
        self.save();
    }

    /// Of a sandbox that is of another release: it is nobody's fault but the node's, so that it is left alone.
    fn foreign(&mut self, container: &str, error: &sandbox::Error) {
        warn!(container, error = error as &dyn std::error::Error, "sandbox of another release");
        self.say(container, Kind::Warning, "SandboxVersion", &error.to_string());
        if let Some(started) = self.live.get(container).and_then(Sandbox::noted_start) {
            self.begun(container, &started);
        }
    }

    /// Of a container that was gone before it could be heard to start.
    fn begun_unheard(&mut self, container: &str) {
        let heard = self.record.run(container).is_some_and(|run| run.started.is_some());
        let noted = self.live.get(container).filter(|_| !heard).and_then(Sandbox::noted_start);
        if let Some(started) = noted {
            self.begun(container, &started);
        }
    }

    /// Notes a container's end, before anyone is told.
    pub(crate) fn end(&mut self, container: &str, exit: &Exit) {
        self.begun_unheard(container);
        let at_once = stops_at_once(&self.record.pod) && self.record.phase == Phase::Terminating;
        let mut exit = self.judged(container, exit);
        if let Some(words) = self.words(container, &exit) {
            exit.message = words;
        }
        let Some(run) = self.record.run(container) else { return };
        let end = terminated(run.id.as_str(), run.started, &exit, at_once);
        info!(container, code = end.exit_code, reason = end.reason, "container ended");
        self.record.close(container, end);
        self.live.remove(container);
        self.settle_hooks(container);
        self.ends.close(container);
        self.save();
        self.forget_group(container);
    }

    /// What the container says itself of its end: that goes before what its sandbox says.
    fn words(&self, container: &str, exit: &Exit) -> Option<String> {
        let place = self.place(container)?;
        let attempt = self.record.run(container)?.attempt;
        let log = log_path(&self.host.config.logs, &self.record.pod, container, attempt);
        let (_, container) = order::find(&self.record.pod, container)?;
        epilogue::words(&container, &State::new(place.state), &log, exit.code != 0)
    }

    /// The kernel says only that it killed; the cgroup says why.
    fn judged(&self, container: &str, exit: &Exit) -> Exit {
        let id = self.record.run(container).map(|run| run.id.as_str()).unwrap_or_default();
        let killed = exit.cause == Cause::Killed;
        if killed && self.host.groups.ran_out_of_memory(&self.record.pod, id) {
            let message = "the container, or its pod, used more memory than its limit";
            return Exit { cause: Cause::OutOfMemory, message: message.to_owned(), ..exit.clone() };
        }
        exit.clone()
    }

    /// Removes the cgroup of a run that has ended.
    fn forget_group(&mut self, container: &str) {
        let Some(run) = self.record.run(container) else { return };
        let (id, host) = (run.id.clone(), Arc::clone(&self.host));
        let (pod, container) = (Arc::clone(&self.record.pod), container.to_owned());
        self.tasks.spawn_blocking(move || {
            let error = host.groups.forget(&pod, &id).err();
            Notice::Forgotten { container, errors: error.into_iter().map(Into::into).collect() }
        });
    }
}

/// A container's end in the API's words.
fn terminated(
    id: &str,
    started: Option<Timestamp>,
    exit: &Exit,
    at_once: bool,
) -> ContainerStateTerminated {
    let time = |millis| Timestamp::from_millisecond(millis).ok().map(status::seconds);
    let (reason, code) = match exit.cause {
        Cause::Exited if exit.code == 0 => ("Completed", 0),
        Cause::Exited | Cause::Trapped => ("Error", exit.code),
        // Not killed after a grace that ran out, but ended in place of a SIGTERM: 128 + 15.
        Cause::Killed if at_once && exit.code == Cause::Killed.code() => ("Error", 143),
        Cause::Killed => ("Error", exit.code),
        Cause::OutOfMemory => ("OOMKilled", exit.code),
        Cause::StartFailed => ("StartError", exit.code),
    };
    ContainerStateTerminated {
        container_id: Some(status::container_id(id)),
        exit_code: i32::from(code),
        reason: Some(reason.to_owned()),
        message: (!exit.message.is_empty()).then(|| exit.message.clone()),
        started_at: exit.started_at.and_then(time).or(started.map(Time)),
        finished_at: time(exit.finished_at),
        signal: None,
    }
}

/// Of an end that nobody saw. Its cgroup may have known more than its files: then it is not overwritten.
fn unknown(end: &mut ContainerStateTerminated) {
    if end.reason.as_deref() != Some("OOMKilled") {
        end.reason = Some("ContainerStatusUnknown".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_saw_is_unknown_unless_its_cgroup_knows() {
        for (cause, reason) in
            [(Cause::Killed, "ContainerStatusUnknown"), (Cause::OutOfMemory, "OOMKilled")]
        {
            let exit = Exit::new(cause, "", None, 5);
            let mut end = terminated("id", None, &exit, false);
            unknown(&mut end);
            assert_eq!((end.reason.as_deref(), end.exit_code), (Some(reason), 137));
        }
    }
}
