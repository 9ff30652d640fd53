//! What probes and hooks have found of a container's newest run: kept in the pod's record, so that a restart of the agent
//! changes nothing of it.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodStatus};
use serde::{Deserialize, Serialize};

use crate::record::{History, Record, Stop};
use crate::status::container_id;

/// Of one run. Written by the pod's worker alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Health {
    /// The postStart hook has done its work.
    pub(crate) hooked: bool,
    /// The startup probe has succeeded.
    pub(crate) started: bool,
    /// The readiness probe succeeds.
    pub(crate) ready: bool,
    /// This node ends the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) halt: Option<Halt>,
    /// Why the postStart hook failed, which ends the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

/// That a container is stopped for its own sake, to run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Halt {
    pub(crate) stop: Stop,
    /// The Event that tells of it.
    pub(crate) message: String,
}

impl Health {
    /// Of a run that began under an agent that kept nothing of the kind: what the API server was told of it.
    pub(crate) fn recalled(status: Option<&PodStatus>, id: &str) -> Self {
        let lists = status.map(|status| {
            [&status.init_container_statuses, &status.container_statuses].into_iter().flatten()
        });
        let id = container_id(id);
        let same = |known: &&ContainerStatus| known.container_id.as_ref() == Some(&id);
        let known = lists.into_iter().flatten().flatten().find(same);
        let started = known.is_some_and(|known| known.started == Some(true));
        Self {
            hooked: started,
            started,
            ready: known.is_some_and(|known| known.ready),
            ..Self::default()
        }
    }
}

impl Record {
    fn health(&self, container: &str) -> Option<&Health> {
        self.containers.get(container)?.health.as_ref()
    }

    /// The health of this run of a container, if it is the newest and has not ended.
    pub(crate) fn health_mut(&mut self, container: &str, attempt: u32) -> Option<&mut Health> {
        let history = self.containers.get_mut(container)?;
        let newest =
            history.run.as_ref().is_some_and(|run| run.attempt == attempt && run.end.is_none());
        newest.then(|| history.health.get_or_insert_default())
    }

    /// Whether the container runs: its guest has begun and not ended.
    pub(crate) fn is_running(&self, container: &str) -> bool {
        self.run(container).is_some_and(|run| run.started.is_some() && run.end.is_none())
    }

    /// Whether the container runs and its postStart hook, if it has one, is done.
    pub(crate) fn is_hooked(&self, container: &Container) -> bool {
        let hook = container.lifecycle.as_ref().and_then(|all| all.post_start.as_ref());
        self.is_running(&container.name)
            && (hook.is_none() || self.health(&container.name).is_some_and(|health| health.hooked))
    }

    /// Whether the container has started: `started` of its status. It runs, its postStart hook is done, and its startup
    /// probe has succeeded, if it has these.
    pub(crate) fn is_started(&self, container: &Container) -> bool {
        self.is_hooked(container)
            && (container.startup_probe.is_none()
                || self.health(&container.name).is_some_and(|health| health.started))
    }

    /// Whether the container may be sent requests: `ready` of its status.
    pub(crate) fn is_ready(&self, container: &Container) -> bool {
        self.is_started(container)
            && (container.readiness_probe.is_none()
                || self.health(&container.name).is_some_and(|health| health.ready))
    }

    /// Why this node ends the newest run of a container, if it does.
    pub(crate) fn halt(&self, container: &str) -> Option<&Halt> {
        self.health(container)?.halt.as_ref()
    }
}

impl History {
    /// Of the newest run, the exit code that says whether the container runs again. One that was stopped for its health has
    /// failed, however it took that.
    pub(crate) fn verdict(&self, exit_code: i32) -> i32 {
        let halted = self.health.as_ref().is_some_and(|health| health.halt.is_some());
        if halted && exit_code == 0 { KILLED } else { exit_code }
    }
}

/// What a container ends with that does not end by itself.
const KILLED: i32 = 137;

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::{Lifecycle, LifecycleHandler, Pod, Probe};

    use super::*;
    use crate::record::Run;

    fn run(started: bool) -> Run {
        Run {
            attempt: 2,
            id: "ab".to_owned(),
            image: String::new(),
            image_id: String::new(),
            process: None,
            user: None,
            resources: None,
            started: started.then_some(Timestamp::UNIX_EPOCH),
            end: None,
            set: jiff::SignedDuration::ZERO,
        }
    }

    fn record(started: bool, health: Health) -> Record {
        let mut record = Record::new(Pod::default().into(), Timestamp::UNIX_EPOCH);
        let run = Some(run(started));
        let history = History { run, health: Some(health), ..History::default() };
        record.containers.insert("app".to_owned(), history);
        record
    }

    #[test]
    fn started_and_ready_are_what_hooks_and_probes_say_where_there_are_any() {
        let hook =
            Lifecycle { post_start: Some(LifecycleHandler::default()), ..Lifecycle::default() };
        let health =
            |hooked, started, ready| Health { hooked, started, ready, ..Health::default() };
        for (has, runs, health, started, ready) in [
            // Without any.
            ((false, false, false), false, health(true, true, true), false, false),
            ((false, false, false), true, health(false, false, false), true, true),
            // A hook holds back all.
            ((true, true, true), true, health(false, true, true), false, false),
            ((true, false, false), true, health(true, false, false), true, true),
            // A startup probe holds back readiness.
            ((false, true, true), true, health(false, false, true), false, false),
            ((false, true, false), true, health(false, true, false), true, true),
            // A readiness probe.
            ((false, false, true), true, health(false, false, false), true, false),
            ((false, false, true), true, health(false, false, true), true, true),
        ] {
            let (hooks, startup, readiness) = has;
            let container = Container {
                name: "app".to_owned(),
                lifecycle: hooks.then(|| hook.clone()),
                startup_probe: startup.then(Probe::default),
                readiness_probe: readiness.then(Probe::default),
                ..Container::default()
            };
            let record = record(runs, health);
            let found = (record.is_started(&container), record.is_ready(&container));
            assert_eq!(found, (started, ready), "{has:?} {runs}");
        }
    }

    #[test]
    fn what_the_api_server_was_told_of_this_very_run_is_recalled() {
        let told = |id: &str| ContainerStatus {
            container_id: Some(id.to_owned()),
            started: Some(true),
            ready: true,
            ..ContainerStatus::default()
        };
        let status =
            |id| PodStatus { container_statuses: Some(vec![told(id)]), ..PodStatus::default() };
        let all = Health { hooked: true, started: true, ready: true, ..Health::default() };
        assert_eq!(Health::recalled(Some(&status("nodule://ab")), "ab"), all);
        assert_eq!(Health::recalled(Some(&status("nodule://cd")), "ab"), Health::default());
        assert_eq!(Health::recalled(None, "ab"), Health::default());
    }

    #[test]
    fn the_health_of_another_run_or_of_one_that_has_ended_is_not_changed() {
        let mut record = record(true, Health::default());
        assert!(record.health_mut("app", 1).is_none());
        assert!(record.health_mut("other", 2).is_none());
        record.health_mut("app", 2).unwrap().ready = true;
        record.run_mut("app").unwrap().end = Some(Default::default());
        assert!(record.health_mut("app", 2).is_none());
        assert!(record.containers["app"].health.as_ref().unwrap().ready);
    }

    #[test]
    fn what_was_stopped_for_its_health_has_failed() {
        let stop = Stop { since: Timestamp::UNIX_EPOCH, grace: 1 };
        let halt = Some(Halt { stop, message: String::new() });
        let record = record(true, Health { halt, ..Health::default() });
        let history = &record.containers["app"];
        assert_eq!((history.verdict(0), history.verdict(3)), (137, 3));
        assert_eq!(History::default().verdict(0), 0);
    }
}
