//! A pod whose containers all run again because one of them has asked for it by how it ended (KEP-5532).
//!
//! Nothing is started before all have ended; then the pod begins anew with its first init container, on the same node, with
//! the same volumes and the same user.

use tracing::info;

use crate::order::Role;
use crate::restart::{Verdict, verdict, verdict_init};
use crate::worker::Worker;

impl Worker {
    /// Whether the end of a container, which is noted, asks for all of them to run again.
    pub(crate) fn asks_for_all(&self, container: &str) -> bool {
        let Some(spec) = self.record.pod.spec.as_ref() else { return false };
        let end = self.record.counted(container).and_then(|run| run.end.as_ref());
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        let named = all.find(|one| one.name == container);
        named.zip(end).is_some_and(|(one, end)| {
            let verdict = match Role::of(&self.record.pod, container) {
                Role::Init => verdict_init(spec, one, end.exit_code),
                Role::Regular => verdict(spec, one, end.exit_code),
            };
            verdict == Verdict::All
        })
    }

    /// Ends what still runs. True when nothing does any more: from then on no earlier run counts.
    pub(crate) fn clear(&mut self) -> bool {
        for sandbox in self.live.values() {
            sandbox.kill();
        }
        if !self.live.is_empty() || !self.unclear.is_empty() {
            return false;
        }
        info!("all containers run again");
        for history in self.record.containers.values_mut() {
            history.again = history.run.is_some();
        }
        self.record.restarting = false;
        self.save()
    }
}
