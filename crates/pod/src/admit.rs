//! A worker asks whether the node takes its pod on, and keeps the answer: a pod that was taken on is not asked about again,
//! whatever becomes of the node.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::admission::{AFFINITY, Claim, Room, misfit, refusal, shutting_down};
use crate::events::Kind;
use crate::failure::Failure;
use crate::host::Host;
use crate::notice::Notice;
use crate::restart::later;
use crate::worker::Worker;

/// How often a pod asks again that waits for others to make room, or for the node to be measured or read.
const PERIOD: Duration = Duration::from_secs(1);

/// The Node as it was read for one pod, which would have been refused by what the watch had shown.
#[derive(Debug, Default)]
pub(crate) enum Reread {
    #[default]
    Not,
    Asked,
    Done(Arc<Node>),
}

impl Worker {
    /// Whether the pod was taken on. If not, it has been ended, or asks again later.
    pub(crate) fn admit(&mut self) -> bool {
        if self.record.admitted {
            return true;
        }
        // Without an API server there is no node that could be full.
        if let Some(node) = self.host.node()
            && !self.is_taken_by(&node)
        {
            return false;
        }
        self.record.admitted = true;
        self.save()
    }

    fn is_taken_by(&mut self, node: &Arc<Node>) -> bool {
        if node.status.as_ref().is_none_or(|status| status.allocatable.is_none()) {
            self.wake_at(later(Timestamp::now(), PERIOD));
            return false;
        }
        if let Some(failure) = refusal(&self.record.pod, node) {
            self.fail(failure, Kind::Warning);
            return false;
        }
        let claim = Claim::of(&self.record.pod);
        match self.host.ledger.take(self.uid(), &claim, node) {
            Room::Given => {}
            Room::Soon => {
                self.wake_at(later(Timestamp::now(), PERIOD));
                return false;
            }
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
        let Some(failure) = misfit(&self.record.pod, self.newest(node)).or(shutting) else {
            return true;
        };
        self.host.ledger.release(self.uid());
        if failure.reason != AFFINITY || !self.reread() {
            self.fail(failure, Kind::Warning);
        }
        false
    }

    /// The Node as it was read for this pod; else as the watch has shown it.
    fn newest<'a>(&'a self, shown: &'a Arc<Node>) -> &'a Node {
        match &self.reread {
            Reread::Done(read) => read,
            Reread::Not | Reread::Asked => shown,
        }
    }

    /// Whether the Node is being read, which it is once: the watch may not have shown yet the labels that the scheduler went by
    /// (the kubelet's `predicateAdmitHandler`).
    fn reread(&mut self) -> bool {
        match self.reread {
            Reread::Done(_) => false,
            Reread::Asked => true,
            Reread::Not => {
                let Some(client) = self.host.client.clone() else { return false };
                let host = Arc::clone(&self.host);
                self.tasks.spawn(async move { Notice::Reread(read(&host, client).await) });
                self.reread = Reread::Asked;
                true
            }
        }
    }

    /// Takes the Node as it was read; where it may not be read, what the watch shows is the last word.
    pub(crate) fn read(&mut self, node: Option<Arc<Node>>) {
        let known = node.or_else(|| self.host.node());
        self.reread = known.map_or(Reread::Not, Reread::Done);
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

/// The node's object, however long the API server takes to answer; none if it refuses.
async fn read(host: &Host, client: kube::Client) -> Option<Arc<Node>> {
    let nodes = Api::<Node>::all(client);
    loop {
        match nodes.get(&host.config.node).await {
            Ok(node) => return Some(Arc::new(node)),
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "node not read");
                if matches!(&error, kube::Error::Api(status) if matches!(status.code, 403 | 404)) {
                    return None;
                }
                sleep(PERIOD).await;
            }
        }
    }
}
