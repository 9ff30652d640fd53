//! One connection: HTTP/1.1, or HTTP/2 where the client begins with it (prior knowledge, RFC 9113, 3.3).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;
use super::site::Site;

/// The longest head of a request in bytes, with all of its fields.
const HEAD: usize = 64 << 10;
const HEAD_H2: u32 = 64 << 10;
/// The most fields of a request.
const FIELDS: usize = 128;
/// The most requests at once on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// What one stream, and one connection, may send before it is read, in bytes.
const WINDOW: u32 = 256 << 10;
const WINDOWS: u32 = 1 << 20;
/// What is kept of an answer for a client that does not read, in bytes.
const SEND: usize = 128 << 10;

/// How much longer than its requests a connection is kept: their last words are still to be sent.
const LINGER: Duration = Duration::from_secs(5);
/// How long a connection without a request is kept when the server is to end.
const LEAVE: Duration = Duration::from_secs(1);

/// Serves the connection to its end. `draining` says that it should come to one soon.
pub(super) async fn serve(
    stream: TcpStream,
    site: Arc<Site>,
    keep_alive: Duration,
    mut draining: watch::Receiver<bool>,
) {
    // Answers are written whole: waiting for more only delays them.
    _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::new(keep_alive));
    let service = service_fn(|request| {
        let (site, activity) = (Arc::clone(&site), Arc::clone(&activity));
        async move { Ok::<_, Infallible>(site.answer(request, &activity).await) }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut leaving = false;
    loop {
        tokio::select! {
            // What has arrived is answered, whatever is to end.
            biased;
            // The client's errors are the client's.
            _ = connection.as_mut() => return,
            Ok(_) = draining.wait_for(|draining| *draining), if !leaving => {
                leaving = true;
                activity.leave();
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(activity.deadline()) => if activity.is_over() { return },
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The time-outs of a connection are this file's, whatever is spoken on it.
    builder.http1().max_buf_size(HEAD).max_headers(FIELDS).header_read_timeout(None);
    builder
        .http2()
        .max_header_list_size(HEAD_H2)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .max_send_buf_size(SEND);
    builder
}

/// What goes on on a connection, and so how long it is kept. A running request is never cut by idleness, and a client
/// that sends or reads nothing does not stay for ever.
pub(super) struct Activity {
    state: Mutex<State>,
}

struct State {
    keep_alive: Duration,
    /// When there was last a request; at first, when the connection was made.
    idle_since: Instant,
    running: Vec<Arc<Pace>>,
}

impl Activity {
    fn new(keep_alive: Duration) -> Self {
        let state = State { keep_alive, idle_since: Instant::now(), running: Vec::new() };
        Self { state: Mutex::new(state) }
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, pace: &Arc<Pace>) -> Running {
        self.lock().running.push(Arc::clone(pace));
        Running { activity: Arc::clone(self), pace: Arc::clone(pace) }
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.keep_alive = LEAVE;
        state.idle_since = Instant::now();
    }

    fn deadline(&self) -> Instant {
        let state = self.lock();
        let last = state.running.iter().map(|pace| pace.deadline() + LINGER).max();
        last.unwrap_or(state.idle_since + state.keep_alive)
    }

    fn is_over(&self) -> bool {
        self.deadline() <= Instant::now()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not done before its answer's body is.
pub(super) struct Running {
    activity: Arc<Activity>,
    pace: Arc<Pace>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.running.retain(|pace| !Arc::ptr_eq(pace, &self.pace));
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::Limits;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_running_request_is_not_idleness() {
        let second = Duration::from_secs(1);
        let activity = Arc::new(Activity::new(second));
        let pace = Arc::new(Pace::new(Limits { pause: 60 * second, whole: 90 * second }));
        let running = activity.begin(&pace);
        tokio::time::advance(30 * second).await;
        assert!(!activity.is_over());
        drop(running);
        assert!(!activity.is_over(), "idleness begins with its end");
        tokio::time::advance(second).await;
        assert!(activity.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_over_after_its_request() {
        let second = Duration::from_secs(1);
        let activity = Arc::new(Activity::new(second));
        let pace = Arc::new(Pace::new(Limits { pause: 3 * second, whole: 9 * second }));
        let _running = activity.begin(&pace);
        tokio::time::advance(3 * second).await;
        assert!(pace.is_over() && !activity.is_over());
        tokio::time::advance(LINGER).await;
        assert!(activity.is_over());
    }
}
