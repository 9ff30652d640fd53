//! Connections that wait to be used again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, sleep_until};
use wasmtime_wasi_http::WasiBody;

/// How long a connection waits: shorter than most servers keep theirs.
const IDLE: Duration = Duration::from_secs(30);

/// How many wait, to all servers together.
const MOST: usize = 32;

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// A connection that can send. It ends when this is dropped.
pub(super) type Connection = SendRequest<WasiBody>;

/// Those that wait, the longest waiting first.
#[derive(Default)]
pub(super) struct Pool {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    connections: VecDeque<(Server, Instant, Connection)>,
    /// Whether somebody sees to it that they end.
    swept: bool,
}

impl Pool {
    /// A connection to `server` that still lives, as far as anybody can tell.
    pub(super) fn take(&self, server: &Server) -> Option<Connection> {
        let mut waiting = self.lock();
        loop {
            let newest = waiting.connections.iter().rposition(|(to, ..)| to == server)?;
            let (.., mut connection) = waiting.connections.remove(newest)?;
            if let Some(Ok(())) = connection.ready().now_or_never() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer has ended. True if the caller is to [`sweep`](Self::sweep).
    pub(super) fn keep(&self, server: Server, connection: Connection) -> bool {
        if connection.is_closed() {
            return false;
        }
        let mut waiting = self.lock();
        if waiting.connections.len() >= MOST {
            waiting.connections.pop_front();
        }
        waiting.connections.push_back((server, Instant::now() + IDLE, connection));
        !std::mem::replace(&mut waiting.swept, true)
    }

    /// Ends those that wait too long, until none waits.
    pub(super) async fn sweep(self: Arc<Self>) {
        while let Some(next) = self.end_old() {
            sleep_until(next).await;
        }
    }

    /// When to look again; none if nobody needs to.
    fn end_old(&self) -> Option<Instant> {
        let mut waiting = self.lock();
        let now = Instant::now();
        waiting.connections.retain(|(_, end, connection)| *end > now && !connection.is_closed());
        let next = waiting.connections.front().map(|(_, end, _)| *end);
        waiting.swept = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
