//! What a pod that has ended leaves behind: what it used is given back at once, its logs and its record go with its object.

use std::error::Error;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::{JoinError, spawn_blocking};
use tracing::{error, info, warn};

use crate::crash;
use crate::links::Links;
use crate::record::{self, Phase};
use crate::restart::{FIRST, later};
use crate::view::log_folder;
use crate::worker::Worker;

/// What a step of the clean-up came to.
type Step = Result<Result<(), record::Error>, JoinError>;

impl Worker {
    /// Gives back what the pod used, and lets go of it once the API server has.
    pub(crate) async fn clean(&mut self) {
        if self.is_mounting() {
            // It says when it is over.
            return;
        }
        let given_back = self.give_back().await;
        if !self.is_done(given_back, "what the pod used is not given back yet") {
            return;
        }
        // Not on the publisher's word: until the watch has seen the removal, it may still name the pod.
        if !self.desired.borrow().removed {
            return;
        }
        let removed = self.remove_rest().await;
        if self.is_done(removed, "pod not removed") {
            info!("pod is gone");
            if let Some((users, user)) = self.host.users.as_ref().zip(self.record.user) {
                users.give_back(user);
            }
            self.record.phase = Phase::Gone;
        }
    }

    /// Cgroups, volumes and what lies in memory.
    async fn give_back(&self) -> Step {
        let memory = self.host.memory_of(&self.record.pod);
        let (folder, host, pod) =
            (self.folder.clone(), Arc::clone(&self.host), Arc::clone(&self.record.pod));
        spawn_blocking(move || {
            host.groups.leave(&pod).map_err(record::Error::Group)?;
            crash::point();
            folder.remove_volumes()?;
            record::remove(&memory)
        })
        .await
    }

    /// Logs, links to them, sockets, and last the record.
    async fn remove_rest(&self) -> Step {
        let (folder, logs) =
            (self.folder.clone(), self.host.config.logs.join(log_folder(&self.record.pod)));
        let names = self.record.containers.keys();
        let sockets: Vec<_> = names.filter_map(|name| Some(self.place(name)?.socket)).collect();
        let (links, pod) = (Links::new(&self.host.config), Arc::clone(&self.record.pod));
        spawn_blocking(move || {
            if let Err(error) = links.forget_pod(&pod) {
                // A sweep finds what is left.
                warn!(error = &error as &dyn Error, "links to logs not removed");
            }
            for socket in sockets {
                // It may be gone since the sandbox ended; a next one of that name would replace it.
                let _ = std::fs::remove_file(socket);
            }
            record::remove(&logs)?;
            crash::point();
            folder.remove()
        })
        .await
    }

    /// Whether a step was done. If not, it is told and tried again.
    fn is_done(&mut self, step: Step, failure: &str) -> bool {
        match step {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => warn!(error = &error as &dyn Error, "{failure}"),
            Err(error) => error!(%error, "{failure}"),
        }
        self.wake_at(later(Timestamp::now(), FIRST));
        false
    }
}
