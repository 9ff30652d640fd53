use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::listener::Listener;

/// Connections at a time. A few probes.
const CONNECTIONS: usize = 64;

/// The checks of `/healthz`, by the kubelet's names. The first two answer because they are asked.
const CHECKS: [&str; 3] = ["ping", "log", SYNCLOOP];
const SYNCLOOP: &str = "syncloop";

/// Says whether the node's work goes on.
#[derive(Clone)]
pub struct Health {
    syncloop: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// Answers `/healthz` over plain HTTP and to anybody: for the node itself, on a loopback address.
pub struct HealthServer {
    listener: Listener,
    address: SocketAddr,
}

impl Health {
    /// `syncloop` is asked at each request, and must answer at once: what is wrong, if something is.
    pub fn new(syncloop: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Health { syncloop: Arc::new(syncloop) }
    }

    fn check(&self, name: &str) -> Result<(), String> {
        if name == SYNCLOOP { (self.syncloop)() } else { Ok(()) }
    }
}

impl HealthServer {
    /// Takes the port; 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = Listener::bind(address, CONNECTIONS).await?;
        Ok(HealthServer { address: listener.address()?, listener })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until `stop`.
    pub async fn run(self, health: Health, stop: CancellationToken) {
        let router = router(health);
        let serve = |stream, place| {
            let (router, stop) = (router.clone(), stop.clone());
            async move {
                connection::serve(stream, router, None, stop).await;
                drop(place);
            }
        };
        self.listener.run(stop.clone(), serve).await;
    }
}

pub(crate) fn router(health: Health) -> Router {
    Router::new().route("/healthz", get(all)).route("/healthz/{check}", get(one)).with_state(health)
}

/// The text of each check only if one fails or if `verbose` is asked for.
async fn all(State(health): State<Health>, RawQuery(query): RawQuery) -> Response {
    let mut report = String::new();
    let mut fails = false;
    for name in CHECKS {
        match health.check(name) {
            Ok(()) => _ = writeln!(report, "[+]{name} ok"),
            Err(reason) => {
                fails = true;
                _ = writeln!(report, "[-]{name} failed: {reason}");
            }
        }
    }
    let verbose = query.is_some_and(|query| {
        query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="))
    });
    if fails {
        answer(StatusCode::INTERNAL_SERVER_ERROR, report + "healthz check failed\n")
    } else if verbose {
        answer(StatusCode::OK, report + "healthz check passed\n")
    } else {
        answer(StatusCode::OK, "ok".to_owned())
    }
}

async fn one(State(health): State<Health>, Path(name): Path<String>) -> Response {
    if !CHECKS.contains(&name.as_str()) {
        return answer(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    }
    match health.check(&name) {
        Ok(()) => answer(StatusCode::OK, "ok".to_owned()),
        Err(reason) => {
            answer(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n"))
        }
    }
}

fn answer(status: StatusCode, text: String) -> Response {
    (status, [(X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
}
