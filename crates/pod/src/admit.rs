//! A worker asks whether the node takes its pod on, and keeps the answer: a pod that was taken on is not asked about again,
//! whatever becomes of the node.

use std::time::Duration;

use jiff::Timestamp;
use tracing::info;

use crate::admission::{Claim, Room, misfit, refusal, shutting_down};
use crate::events::Kind;
use crate::failure::Failure;
use crate::restart::later;
use crate::worker::Worker;

/// How often a pod asks again that waits for others to make room, or for the node to be measured.
const PERIOD: Duration = Duration::from_secs(1);

impl Worker {
    /// Whether the pod was taken on. If not, it has been ended, or asks again later.
    pub(crate) fn admit(&mut self) -> bool {
        if self.record.admitted {
            return true;
        }
        // Without an API server there is no node that could be full.
        if let Some(node) = self.host.node() {
            if node.status.as_ref().is_none_or(|status| status.allocatable.is_none()) {
                self.wake_at(later(Timestamp::now(), PERIOD));
                return false;
            }
            if let Some(failure) = refusal(&self.record.pod, &node) {
                self.fail(failure, Kind::Warning);
                return false;
            }
            let claim = Claim::of(&self.record.pod);
            match self.host.ledger.take(self.uid(), &claim, &node) {
                Room::Given => {}
                Room::After(victims) => {
                    self.preempt(victims);
                    return false;
                }
                Room::None(failure) => {
                    self.fail(failure, Kind::Warning);
                    return false;
                }
            }
            let shutting = self.host.shutting.borrow().then(shutting_down);
            if let Some(failure) = misfit(&self.record.pod, &node).or(shutting) {
                self.host.ledger.release(self.uid());
                self.fail(failure, Kind::Warning);
                return false;
            }
        }
        self.record.admitted = true;
        self.save()
    }

    /// Has these pods ended so that this one has room.
    fn preempt(&mut self, victims: Vec<String>) {
        info!(?victims, "others make room for a critical pod");
        for victim in victims {
            self.host.order(victim, Failure::preempted());
        }
        self.wake_at(later(Timestamp::now(), PERIOD));
    }

    pub(crate) fn uid(&self) -> &str {
        self.record.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}
