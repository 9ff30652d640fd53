//! The server, from its first connection to its last.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nodule_sandbox_proto::{Exit, Http, StateError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use wasmtime_wasi_http::handler::{ProxyHandler, ProxyPre};

use super::connection;
use super::gate::Gate;
use super::instance::Maker;
use super::pace::Limits;
use super::service::{self, Service};
use super::site::Site;
use super::tell::Tell;
use super::ticker::Ticker;
use crate::error::StartError;
use crate::given::Given;
use crate::guest::Host;
use crate::process::now;

/// The most connections at once; others wait in the kernel. Below what the process may have open, since guests ask other
/// servers too.
const CONNECTIONS: usize = 1024;

/// How long until a connection that could not be taken is tried again: the process may be out of descriptors.
const RETRY: Duration = Duration::from_millis(100);

/// The stop notice, from any thread.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Notify>);

impl Stop {
    pub(crate) fn notify(&self) {
        self.0.notify_one();
    }
}

/// Serves until the stop notice, and then until all that was begun is done.
pub(crate) async fn serve(
    given: Given,
    service: Service,
    started: impl FnOnce(i64, SocketAddr) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let Service { pre, http, listener } = service;
    let stop = given.stop.clone();
    let site = Arc::new(site(given, pre, &http)?);
    let listener = listener.open().map_err(StartError::Runtime)?;
    let address = listener.local_addr().map_err(StartError::Runtime)?;
    let at = now();
    started(at, address)?;
    let server = Server {
        site,
        keep_alive: Duration::from_millis(http.keep_alive),
        draining: watch::Sender::new(false),
        connections: JoinSet::new(),
    };
    server.run(listener, &stop).await;
    Ok(Exit::exited(0, at, now()))
}

fn site(given: Given, pre: ProxyPre<Host>, http: &Http) -> Result<Site, StartError> {
    let tell = Tell::new(given.log.clone(), http.access_log);
    let limits = Limits {
        pause: Duration::from_millis(http.request_timeout),
        whole: Duration::from_millis(http.stream_timeout),
    };
    let ticker = Ticker::start(service::engine(&pre).clone()).map_err(StartError::Runtime)?;
    let maker = Maker {
        given,
        pre,
        ticker,
        tell: tell.clone(),
        reuse: http.instance_reuse as usize,
        patience: limits.pause,
    };
    let gate = Gate::new(http.concurrency, http.queue);
    Ok(Site { handler: ProxyHandler::new(maker), gate, limits, tell })
}

struct Server {
    site: Arc<Site>,
    keep_alive: Duration,
    draining: watch::Sender<bool>,
    connections: JoinSet<()>,
}

impl Server {
    async fn run(mut self, listener: TcpListener, stop: &Stop) {
        loop {
            let room = self.connections.len() < CONNECTIONS;
            tokio::select! {
                () = stop.0.notified() => break,
                accepted = listener.accept(), if room => self.take(accepted.map(|(stream, _)| stream)).await,
                Some(_) = self.connections.join_next() => {}
            }
        }
        self.drain(listener).await;
    }

    async fn take(&mut self, accepted: io::Result<TcpStream>) {
        match accepted {
            Ok(stream) => self.begin(stream),
            // One that the client has given up is not worth a wait.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => sleep(RETRY).await,
        }
    }

    fn begin(&mut self, stream: TcpStream) {
        let (site, draining) = (Arc::clone(&self.site), self.draining.subscribe());
        self.connections.spawn(connection::serve(stream, site, self.keep_alive, draining));
    }

    /// Takes no more connections but those that the kernel has accepted already, lets each answer what it was asked, and
    /// waits for the instances.
    async fn drain(mut self, listener: TcpListener) {
        while self.connections.len() < CONNECTIONS
            && let Some(stream) = waiting(&listener)
        {
            self.begin(stream);
        }
        drop(listener);
        self.draining.send_replace(true);
        while self.connections.join_next().await.is_some() {}
        self.site.gate.rest().await;
    }
}

/// A connection that waits to be taken.
fn waiting(listener: &TcpListener) -> Option<TcpStream> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match listener.poll_accept(&mut context) {
        std::task::Poll::Ready(Ok((stream, _))) => Some(stream),
        std::task::Poll::Ready(Err(_)) | std::task::Poll::Pending => None,
    }
}
