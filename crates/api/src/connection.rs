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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    fn router() -> Router {
        let endless =
            async || Body::from_stream(futures::stream::pending::<Result<&str, std::io::Error>>());
        Router::new().route("/", get(async || "ok")).route("/endless", get(endless))
    }

    /// Runs a client against a server, and says how long the connection lasted.
    async fn lasts(
        client: impl AsyncFnOnce(&mut DuplexStream),
        stop: &CancellationToken,
    ) -> Duration {
        let (mut near, far) = duplex(1 << 20);
        let start = Instant::now();
        let served = async {
            serve(far, router(), None, stop.clone()).await;
            start.elapsed()
        };
        let stays = async {
            client(&mut near).await;
            near
        };
        let (lasted, _near) = tokio::join!(served, stays);
        lasted
    }

    async fn answer(stream: &mut DuplexStream, expected: &str) {
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_or_slowly_is_gone_soon() {
        let stop = CancellationToken::new();
        assert_eq!(lasts(async |_| {}, &stop).await, FIRST_REQUEST);
        let slow = async |stream: &mut DuplexStream| {
            for byte in REQUEST.iter().take(REQUEST.len() - 1) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = stream.write_all(&[*byte]).await;
            }
        };
        assert_eq!(lasts(slow, &stop).await, FIRST_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_asked_may_be_idle_for_longer() {
        let once = async |stream: &mut DuplexStream| {
            stream.write_all(REQUEST).await.unwrap();
            answer(stream, "HTTP/1.1 200").await;
        };
        let lasted = lasts(once, &CancellationToken::new()).await;
        assert!(lasted >= IDLE && lasted < IDLE + Duration::from_secs(1), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_without_end_is_refused() {
        let large = async |stream: &mut DuplexStream| {
            let header =
                format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(HEADER_LIMIT));
            stream.write_all(header.as_bytes()).await.unwrap();
            answer(stream, "HTTP/1.1 431").await;
        };
        assert_eq!(lasts(large, &CancellationToken::new()).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_an_answer_but_not_long() {
        let stop = CancellationToken::new();
        let endless = async |stream: &mut DuplexStream| {
            stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            answer(stream, "HTTP/1.1 200").await;
            stop.cancel();
        };
        let lasted = lasts(endless, &stop).await;
        assert!(lasted >= GRACE && lasted < Duration::from_secs(1), "{lasted:?}");
    }
}
