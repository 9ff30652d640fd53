use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::authentication::{Authentication, User};
use crate::authorization::{Authorization, Authorizer};
use crate::guard::{Guard, guard};
use crate::health::{self, Health};
use crate::listener::{Listener, Place};
use crate::metrics::{self, Metrics};
use crate::node::Node;
use crate::tls::{Current, Tls, TlsError};
use crate::{connection, logs, pods};

/// Connections at a time. Each follower of a log has one; the API server needs few besides.
const CONNECTIONS: usize = 2048;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How the server is seen and whom it lets in.
pub struct Config {
    /// The serving certificate, and the authorities of clients.
    pub tls: Tls,
    /// This node's name, which those who call need rights for.
    pub node: String,
    /// Whether the API server is asked what a user may do.
    pub authorization: Authorization,
}

/// Why the server can not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate, its key or the authorities can not be used.
    #[error("prepare TLS")]
    Tls(#[from] TlsError),
    /// The port can not be had.
    #[error("listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The node's HTTPS API.
pub struct Server {
    listener: Listener,
    address: SocketAddr,
    tls: Arc<Current>,
    node: String,
    authorization: Authorization,
}

impl Server {
    /// Loads the certificates and takes the port; 0 takes a free one.
    pub async fn bind(address: SocketAddr, config: Config) -> Result<Self, Error> {
        let Config { tls, node, authorization } = config;
        let tls = Arc::new(Current::load(tls)?);
        let listening = async {
            let listener = Listener::bind(address, CONNECTIONS).await?;
            Ok((listener.address()?, listener))
        };
        let (address, listener) =
            listening.await.map_err(|source| Error::Bind { address, source })?;
        Ok(Server { listener, address, tls, node, authorization })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until `stop`. The API server is asked through `client` who the owner of a token is and what a user
    /// may do.
    pub async fn run(
        self,
        node: impl Into<Node>,
        client: kube::Client,
        health: Health,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let guard = Guard {
            authentication: Authentication::new(client.clone()),
            authorizer: Authorizer::new(self.authorization, client, self.node),
        };
        let router = router(Arc::new(node.into()), Arc::new(guard), health, metrics);
        let tls = self.tls;
        let serve =
            |stream, place| connect(stream, place, Arc::clone(&tls), router.clone(), stop.clone());
        self.listener.run(stop.clone(), serve).await;
    }
}

fn router(node: Arc<Node>, guarded_by: Arc<Guard>, health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::read))
        .route("/pods", get(pods::list))
        .with_state(node)
        .merge(health::router(health))
        .merge(metrics::router(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"))
        .layer(from_fn_with_state(guarded_by, guard))
}

async fn connect(
    tcp: TcpStream,
    _place: Place,
    tls: Arc<Current>,
    router: Router,
    stop: CancellationToken,
) {
    let handshake = timeout(HANDSHAKE, TlsAcceptor::from(tls.get()).accept(tcp));
    let stream = match stop.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => {
            debug!(error = &error as &dyn std::error::Error, "handshake failed");
            return;
        }
        Some(Err(_)) | None => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = certificate.and_then(User::of_certificate);
    Box::pin(connection::serve(stream, router, user, stop)).await;
}
