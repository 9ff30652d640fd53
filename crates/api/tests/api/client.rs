//! An HTTPS client, as the API server is one.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, Identity};

/// One connection. Dropped, it is closed.
pub(crate) struct Client {
    sender: SendRequest<Body>,
    pub(crate) tasks: JoinSet<Result<(), hyper::Error>>,
}

pub(crate) struct Dial<'a> {
    pub(crate) port: u16,
    pub(crate) trusts: &'a Authority,
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) protocols: &'a [&'a str],
}

impl Dial<'_> {
    pub(crate) async fn tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusts.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder =
            builder.with_protocol_versions(self.versions).unwrap().with_root_certificates(roots);
        let mut config = match self.identity.map(Identity::der) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            self.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), tcp)
            .await
    }

    pub(crate) async fn client(&self) -> Client {
        let stream = self.tls().await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Client { sender, tasks }
    }
}

impl Client {
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    pub(crate) async fn open(&mut self, path: &str) -> Response<Incoming> {
        self.send(Request::get(path).header("host", "localhost").body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        read(self.open(path).await).await
    }

    pub(crate) async fn get_with_token(&mut self, path: &str, token: &str) -> (StatusCode, String) {
        let request = Request::get(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"));
        read(self.send(request.body(Body::empty()).unwrap()).await.unwrap()).await
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
