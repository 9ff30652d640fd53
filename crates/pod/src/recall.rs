//! What an agent does first: it takes up what an earlier one has left.

use std::sync::Arc;

use nodule_volume::Memory;
use tokio::task;
use tracing::warn;

use crate::admission::Claim;
use crate::host::Host;
use crate::links::Links;
use crate::pods::Cause;
use crate::record::{self, Folder, Phase, Record};
use crate::runner::Runner;

impl Runner {
    /// Makes the place for what must not be on a disk.
    pub(crate) async fn remember(host: Arc<Host>) -> Result<(), Cause> {
        let (folder, may_mount) = (host.memory_folder(), host.config.may_mount);
        let opened = task::spawn_blocking(move || Memory::open(&folder, may_mount)).await;
        let opened = opened.map_err(|source| Cause::Worker { source })?;
        let memory = opened.map_err(|source| Cause::Memory { source })?;
        if !memory.is_memory() {
            let folder = host.memory_folder();
            warn!(folder = %folder.display(), "Secrets lie on a disk: it is no tmpfs, and none may be mounted");
        }
        // Set once: a runner runs once.
        let _ = host.memory.set(memory);
        Ok(())
    }

    /// Removes what an earlier agent had no time to. Before any pod is looked after, so that what they make is not met.
    pub(crate) async fn sweep(host: Arc<Host>) {
        let sweep = move || {
            if let Err(error) = Links::new(&host.config).sweep() {
                warn!(error = &error as &dyn std::error::Error, "links to logs not removed");
            }
            let known = Folder::uids(&host.config.root);
            if let Some(Err(error)) = host.memory.get().map(|memory| memory.sweep(&known)) {
                warn!(error = &error as &dyn std::error::Error, "Secrets of old pods not removed");
            }
            if let Err(error) = host.groups.sweep(&known) {
                warn!(error = &error as &dyn std::error::Error, "cgroups of old pods not removed");
            }
        };
        if let Err(error) = task::spawn_blocking(sweep).await {
            warn!(%error, "what old pods left is not removed");
        }
    }

    pub(crate) fn recall(&mut self) -> Result<(), record::Error> {
        let records = Folder::all(&self.host.config.root)?;
        let mut read = Vec::new();
        for (folder, record) in records {
            match record {
                Ok(record) => read.push((folder, record)),
                Err(error) => self.leave(folder, &error),
            }
        }
        // All users are taken before a pod that has none takes one.
        for user in read.iter().filter_map(|(_, record)| record.user) {
            self.host.users.iter().for_each(|users| users.recall(user));
        }
        read.iter().for_each(|(_, record)| self.claim(record));
        read.into_iter().for_each(|(folder, record)| self.begin(folder, record));
        Ok(())
    }

    /// Notes what a pod that was taken on has of the node.
    pub(crate) fn claim(&self, record: &Record) {
        if record.admitted && record.phase < Phase::Terminated {
            let uid = record.pod.metadata.uid.as_deref().unwrap_or_default();
            self.host.ledger.recall(uid, Claim::of(&record.pod));
        }
    }
}
