//! From what is allocated to what containers have.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::{InProgress, asks_for_restart, memory, resources};
use crate::clock::moved;
use crate::events::Kind;
use crate::host::Host;
use crate::notice::Notice;
use crate::order;
use crate::restart::{FIRST, later};
use crate::sandbox::Sandbox;
use crate::words::chain;
use crate::worker::Worker;

/// What of it is under way. Owned by the worker.
#[derive(Debug, Default)]
pub(crate) struct Applying {
    /// Containers that are just being changed.
    busy: BTreeSet<String>,
    /// After a failure, not before.
    due: Option<Timestamp>,
}

impl Applying {
    /// Something else is allocated: an earlier failure says nothing of it.
    pub(super) fn restart(&mut self) {
        self.due = None;
    }

    /// The clock was set.
    pub(crate) fn move_by(&mut self, by: SignedDuration) {
        self.due = self.due.map(|due| moved(due, by));
    }
}

/// What became of the change of one run.
#[derive(Debug)]
pub(crate) struct Applied {
    container: String,
    attempt: u32,
    given: ResourceRequirements,
    result: Result<(), String>,
}

/// One run that is to have other resources.
struct Change {
    host: Arc<Host>,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    sandbox: Sandbox,
    had: ResourceRequirements,
}

impl Worker {
    /// Begins to change the containers that do not have what is allocated; those that must run anew for it are `renew`'s.
    pub(super) fn apply(&mut self) {
        if self.record.resize.in_progress.is_none() || !self.applying.busy.is_empty() {
            return;
        }
        if let Some(due) = self.applying.due.filter(|due| Timestamp::now() < *due) {
            return self.wake_at(due);
        }
        let outdated: Vec<_> = self.live.keys().filter_map(|name| self.change(name)).collect();
        if outdated.is_empty() {
            self.record.resize.in_progress = None;
            self.save();
            return self.tell_resize(Kind::Normal, "ResizeCompleted", "completed", None);
        }
        for change in outdated.into_iter().filter(|it| !asks_for_restart(&it.container, &it.had)) {
            self.begin_change(change);
        }
    }

    /// What is to be changed of the newest run of a container, if anything is.
    fn change(&self, name: &str) -> Option<Change> {
        let (_, container) = order::find(&self.record.pod, name)?;
        let run = self.record.run(name)?;
        let had = run.resources.clone().filter(|had| *had != resources(&container))?;
        Some(Change {
            host: Arc::clone(&self.host),
            pod: Arc::clone(&self.record.pod),
            container,
            id: run.id.clone(),
            sandbox: self.live.get(name)?.clone(),
            had,
        })
    }

    fn begin_change(&mut self, change: Change) {
        let container = change.container.name.clone();
        let Some(attempt) = self.record.run(&container).map(|run| run.attempt) else { return };
        self.applying.busy.insert(container.clone());
        self.tasks.spawn(async move {
            let given = resources(&change.container);
            let result = change.make().await;
            Notice::Resized(Applied { container, attempt, given, result })
        });
    }

    /// Notes what became of a change.
    pub(crate) fn applied(&mut self, applied: Applied) {
        let Applied { container, attempt, given, result } = applied;
        self.applying.busy.remove(&container);
        let run = self.record.run_mut(&container).filter(|run| run.attempt == attempt);
        match (run, result) {
            (Some(run), Ok(())) => {
                run.resources = Some(given);
                self.record.resize.in_progress.get_or_insert_default().error = None;
            }
            (Some(run), Err(error)) if run.end.is_none() => self.failed(&container, &error),
            // A run that has ended needs nothing any more.
            (Some(_) | None, _) => {}
        }
        self.save();
    }

    fn failed(&mut self, container: &str, error: &str) {
        let due = later(Timestamp::now(), FIRST);
        self.applying.due = Some(due);
        self.wake_at(due);
        let error = format!("container {container}: {error}");
        let told =
            self.record.resize.in_progress.replace(InProgress { error: Some(error.clone()) });
        if told.and_then(|told| told.error).as_ref() != Some(&error) {
            self.tell_resize(Kind::Warning, "ResizeError", "error", Some(&error));
        }
    }
}

impl Change {
    /// What is taken away is taken from the guest first, which says whether it can do without; what is added is added to the
    /// cgroups first.
    async fn make(self) -> Result<(), String> {
        let (had, wanted) = (memory(&self.had), memory(&resources(&self.container)));
        let bytes = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        if bytes(wanted) < bytes(had) {
            self.limit(wanted).await?;
        }
        let (host, pod, container, id) =
            (self.host.clone(), self.pod.clone(), self.container.clone(), self.id.clone());
        let changed =
            tokio::task::spawn_blocking(move || host.groups.resize(&pod, &container, &id));
        changed.await.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
        if bytes(wanted) > bytes(had) {
            self.limit(wanted).await?;
        }
        Ok(())
    }

    async fn limit(&self, memory: Option<u64>) -> Result<(), String> {
        match self.sandbox.limit(memory).await {
            Ok(None) => Ok(()),
            Ok(Some(used)) => {
                let limit = memory.unwrap_or(u64::MAX);
                Err(format!("its memory cannot be limited to {limit} bytes while it uses {used}"))
            }
            Err(error) => Err(chain(&error)),
        }
    }
}
