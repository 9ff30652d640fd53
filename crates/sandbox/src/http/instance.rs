//! Instances of the program, made as requests come and thrown away after their share of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, timeout};
use wasmtime::component::GuestTaskId;
use wasmtime::{Error, Result, Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};

use super::lease::{Lease, Ticket};
use super::service;
use super::tell::Tell;
use super::ticker::Ticker;
use crate::given::Given;
use crate::guest::Host;

/// How long an instance that may answer more requests waits for one. It is memory, and the ticker runs for it.
const IDLE: Duration = Duration::from_secs(5);

/// How many requests an instance of WASI 0.3 answers at once, where it may answer several: what Wasmtime's own server does.
const TOGETHER: usize = 16;

/// Makes instances.
pub(super) struct Maker {
    pub(super) given: Given,
    pub(super) pre: ProxyPre<Host>,
    pub(super) ticker: Ticker,
    pub(super) tell: Tell,
    /// Requests an instance.
    pub(super) reuse: usize,
    /// How long the making may take: the program's own start functions run then.
    pub(super) patience: Duration,
}

impl HandlerState for Maker {
    type StoreData = Host;
    type WorkerExpiration = Expiry;
    type WorkerState = Worker;

    async fn instantiate(&self) -> Result<Instance<Host, Expiry, Worker>> {
        let interest = self.ticker.interest();
        let mut host = self.given.host()?;
        host.interest = Some(interest);
        let mut store = Store::new(service::engine(&self.pre), host);
        store.limiter(|host| &mut host.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let made = timeout(self.patience, self.pre.instantiate_async(&mut store)).await;
        let refused = store.data().memory.refused();
        let proxy = match (made, refused) {
            (Ok(Ok(proxy)), _) => proxy,
            (Ok(Err(_)), Some(refused)) => return Err(Crowded { wanted: refused.wanted }.into()),
            (Ok(Err(error)), None) => return Err(error),
            (Err(_), _) => return Err(Error::msg("the program's start functions do not end")),
        };
        let lease = Arc::new(Lease::default());
        let expiration = Expiry { lease: Arc::clone(&lease), sleep: Box::pin(sleep(IDLE)) };
        let state = Worker { lease, reuse: self.reuse, tell: self.tell.clone() };
        Ok(Instance { store, proxy, view: Host::http, expiration, state })
    }
}

/// The instances there are leave no memory for another.
#[derive(Debug, thiserror::Error)]
#[error("one more instance would make it {wanted} bytes of memory, which is over the limit")]
pub(super) struct Crowded {
    wanted: usize,
}

/// One instance's part in the decision which requests it takes.
pub(super) struct Worker {
    lease: Arc<Lease>,
    reuse: usize,
    tell: Tell,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = Ticket;

    fn should_accept_request(&self, running: usize, taken: usize) -> ShouldAccept {
        if taken >= self.reuse {
            ShouldAccept::Never
        } else if running >= TOGETHER {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Host>,
        ticket: Ticket,
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        let begun = self.lease.begin(ticket);
        Box::pin(async move { begun.pace.over().await })
    }

    fn drop(&self, store: Store<Host>, result: Result<()>) {
        if let Err(error) = result {
            // Before the store goes: with it the bodies end, and must not look whole.
            self.lease.break_off();
            self.tell.broken(&error);
        }
        drop(store);
    }
}

/// When an instance ends that does not end by itself.
pub(super) struct Expiry {
    lease: Arc<Lease>,
    sleep: Pin<Box<Sleep>>,
}

impl WorkerExpiration for Expiry {
    #[expect(clippy::disallowed_types, reason = "the library's own clock is the standard one")]
    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        since: std::time::Instant,
    ) -> Poll<()> {
        let deadline = match status {
            WorkerStatus::Idle => {
                self.lease.rest();
                Instant::from_std(since) + IDLE
            }
            WorkerStatus::Requests | WorkerStatus::PostReturn => self.lease.deadline(),
        };
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(context)
    }
}
