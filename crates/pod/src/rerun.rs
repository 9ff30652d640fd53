//! A pod whose containers all run again because one of them has asked for it by how it ended (KEP-5532).
//!
//! Nothing is started before all have ended; then the pod begins anew with its first init container, on the same node, with
//! the same volumes and the same user.

use std::sync::Arc;

use tracing::info;

use crate::ephemeral;
use crate::order::{Role, find};
use crate::restart::{Verdict, verdict, verdict_init};
use crate::worker::Worker;

impl Worker {
    /// Whether the end of a container, which is noted, asks for all of them to run again.
    pub(crate) fn asks_for_all(&self, container: &str) -> bool {
        let spec = self.record.pod.spec.as_ref();
        let end = self.record.counted(container).and_then(|run| run.end.as_ref());
        let found = find(&self.record.pod, container);
        spec.zip(end).zip(found).is_some_and(|((spec, end), (role, container))| {
            let verdict = match role {
                Role::Init => verdict_init(spec, &container, end.exit_code),
                Role::Regular | Role::Ephemeral => verdict(spec, &container, end.exit_code),
            };
            verdict == Verdict::All
        })
    }

    /// Ends what still runs but ephemeral containers. True when nothing does any more: from then on no earlier run counts.
    pub(crate) fn clear(&mut self) -> bool {
        let pod = Arc::clone(&self.record.pod);
        let is_one = |name: &String| !ephemeral::is_one(&pod, name);
        for (_, sandbox) in self.live.iter().filter(|(name, _)| is_one(name)) {
            sandbox.kill();
        }
        if self.live.keys().chain(&self.unclear).any(is_one) {
            return false;
        }
        // Also where nothing else ran: that they restarted is a condition that stays.
        self.tell();
        info!("all containers run again");
        for (_, history) in self.record.containers.iter_mut().filter(|(name, _)| is_one(name)) {
            history.again = history.run.is_some();
        }
        self.record.restarting = false;
        self.save()
    }
}
