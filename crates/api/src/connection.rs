use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use crate::authentication::User;

/// How long a client may take until its first request is here. Who is not let in gets no second one.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// How long a connection may be idle (the kubelet's `IdleTimeout`), or a later request's header take.
const IDLE: Duration = Duration::from_secs(90);

/// A request's header may have so many bytes; tokens are the largest part of it.
const HEADER_LIMIT: usize = 64 << 10;

/// What is not answered so long after the stop is cut off.
const GRACE: Duration = Duration::from_millis(700);

/// Serves HTTP/1.1 to one client until it goes, is idle for too long, or `stop`. `user` is who its
/// certificate says it is.
pub(crate) async fn serve<S>(stream: S, router: Router, user: Option<User>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = CancellationToken::new();
    let service = service_fn(|mut request: Request<Incoming>| {
        asked.cancel();
        request.extensions_mut().insert(user.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = pin!(server().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                debug!(error = &error as &dyn std::error::Error, "connection broke");
            }
        }
        () = silence(&asked) => debug!("no request came"),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(GRACE, connection).await;
        }
    }
}

fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE).max_header_size(HEADER_LIMIT);
    server
}

/// Returns if no request has come in time, else never.
async fn silence(asked: &CancellationToken) {
    if timeout(FIRST_REQUEST, asked.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
