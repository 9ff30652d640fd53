//! A pod whose containers all run again because one of them has asked for it by how it ended (KEP-5532).
//!
//! Nothing is started before all have ended; then the pod begins anew with its first init container, on the same node, with
//! the same volumes and the same user.

use std::sync::Arc;

use tracing::info;

use crate::ephemeral;
use crate::worker::Worker;

impl Worker {
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
        self.record.begin_anew();
        self.save()
    }
}
