use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, api::PostParams};
use tokio::sync::watch;

use crate::{
    backoff::Retry,
    config::Config,
    server::{Failure, Server},
};

const NAMESPACE: &str = "kube-node-lease";
const OPERATION: &str = "renew lease";
/// How often a renewal is tried before the next one is due anyway.
const TRIES: u32 = 5;
/// Renewals come up to this share later than their period, so that the nodes of a cluster spread out.
const JITTER: f64 = 0.04;

/// The least between the times of two renewals: what is told is cut to microseconds.
const STEP: Duration = Duration::from_millis(1);

/// The task that keeps the node's Lease fresh: with no more than that, a node whose status cannot be written keeps its
/// pods. It shares neither connection nor state with the other tasks.
pub(crate) struct Renewal {
    server: Server,
    leases: Api<Lease>,
    config: Arc<Config>,
    registered: watch::Receiver<Option<Arc<Node>>>,
    /// The Lease as the API server last returned it; `None` when it must be asked.
    last: Option<Lease>,
    /// The owner, from the Node that was last registered.
    owner: Option<OwnerReference>,
}

impl Renewal {
    pub(crate) fn new(
        server: Server,
        config: Arc<Config>,
        registered: watch::Receiver<Option<Arc<Node>>>,
    ) -> Self {
        let leases = Api::namespaced(server.client.clone(), NAMESPACE);
        Self { server, leases, config, registered, last: None, owner: None }
    }

    /// Renews for ever, from the first registration on.
    pub(crate) async fn run(mut self) -> Infallible {
        let period = self.config.periods.renew();
        if self.registered.wait_for(Option::is_some).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            self.renew().await;
            tokio::time::sleep(period.mul_f64(1.0 + rand::random_range(0.0..=JITTER))).await;
        }
    }

    async fn renew(&mut self) {
        let mut retry = Retry::new(&self.config.periods);
        for _ in 0..TRIES {
            match self.write().await {
                Ok(lease) => {
                    self.last = Some(lease);
                    return self.server.reach.worked(OPERATION);
                }
                Err(failure) => self.failed(&mut retry, &failure).await,
            }
        }
    }

    /// The Lease is asked for anew. Only a conflict is no failure, and the Lease can be had at once.
    async fn failed(&mut self, retry: &mut Retry, failure: &Failure) {
        let known = self.last.take().is_some();
        if !(known && (failure.is_conflict() || failure.is_not_found())) {
            self.server.reach.failed(OPERATION, failure);
            tokio::time::sleep(self.wait(retry, failure)).await;
        }
    }

    fn wait(&self, retry: &mut Retry, failure: &Failure) -> Duration {
        retry.wait().max(failure.retry_after().min(self.config.periods.renew()))
    }

    /// One write: on top of what was seen last, or of what is there now.
    async fn write(&mut self) -> Result<Lease, Failure> {
        let last = match self.last.clone() {
            Some(last) => Some(last),
            None => self.server.ask(self.leases.get_opt(&self.config.name)).await?,
        };
        let params = PostParams::default();
        let lease = self.renewed(last.clone().unwrap_or_default());
        match last {
            Some(_) => {
                self.server.ask(self.leases.replace(&self.config.name, &params, &lease)).await
            }
            None => self.server.ask(self.leases.create(&params, &lease)).await,
        }
    }

    /// The Lease with the time of now; what others wrote into it stays.
    fn renewed(&mut self, mut lease: Lease) -> Lease {
        if let Some(node) = self.registered.borrow().as_deref() {
            self.owner = owner(node);
        }
        let name = &self.config.name;
        lease.metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..lease.metadata
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(name.clone());
        spec.lease_duration_seconds = i32::try_from(self.config.periods.lease.as_secs()).ok();
        spec.renew_time = Some(MicroTime(after(spec.renew_time.as_ref(), Timestamp::now())));
        lease
    }
}

/// The time of a renewal: now, but later than the one before in any case. The cluster hears of a renewal by its later time alone
/// (`tryUpdateNodeHealth` of the node controller), and would lose a node whose clock was set back.
fn after(last: Option<&MicroTime>, now: Timestamp) -> Timestamp {
    let next = last.and_then(|last| last.0.checked_add(STEP).ok());
    next.map_or(now, |next| next.max(now))
}

/// So that the Lease goes when the Node does.
fn owner(node: &Node) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone()?,
        uid: node.metadata.uid.clone()?,
        ..OwnerReference::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_later_than_the_one_before_though_the_clock_was_set_back() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap();
        for (last, now, wanted) in [
            (None, 5_000, 5_000),
            (Some(5_000), 15_000, 15_000),
            (Some(15_000), 15_000, 15_001),
            (Some(3_600_000), 25_000, 3_600_001),
        ] {
            let last = last.map(|last| MicroTime(at(last)));
            assert_eq!(after(last.as_ref(), at(now)), at(wanted), "{last:?} {now}");
        }
    }
}
