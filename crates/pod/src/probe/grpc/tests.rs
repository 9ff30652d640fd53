//! Against tonic's health service, and against servers that are none.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::server::NamedService;
use tonic::transport::server::{Server, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::*;

const AGENT: &str = "kube-probe/1.36";

/// A health service, where there is one; and the way to say what is healthy.
async fn server() -> (u16, HealthReporter, JoinSet<()>) {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = incoming.local_addr().unwrap().port();
    let (reporter, service) = tonic_health::server::health_reporter();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    (port, reporter, tasks)
}

async fn ask(port: u16, service: &str) -> Attempt {
    Check { host: "127.0.0.1", port, service, agent: AGENT, tls: false }.probe().await
}

fn fails(said: &str) -> Attempt {
    Ok(Outcome::Failure(said.to_owned()))
}

#[tokio::test]
async fn a_service_is_healthy_when_it_serves() {
    let (port, reporter, _tasks) = server().await;
    assert_eq!(ask(port, "").await, Ok(Outcome::Success));
    let long = "shop.".repeat(60);
    for name in ["shop.Cart", long.as_str()] {
        reporter.set_service_status(name, ServingStatus::Serving).await;
        assert_eq!(ask(port, name).await, Ok(Outcome::Success), "{name}");
        reporter.set_service_status(name, ServingStatus::NotServing).await;
        let said = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(ask(port, name).await, fails(said));
        reporter.set_service_status(name, ServingStatus::Unknown).await;
        let said = "service unhealthy (responded with \"UNKNOWN\")";
        assert_eq!(ask(port, name).await, fails(said));
    }
}

/// TLS in front of the service, with a certificate that nobody has signed.
async fn behind_tls(to: u16) -> (u16, JoinSet<()>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut outer) = acceptor.accept(stream).await else { continue };
            let mut inner = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let _copied = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn by_tls_no_certificate_is_wrong() {
    let (inner, _reporter, _tasks) = server().await;
    let (port, _tls) = behind_tls(inner).await;
    let check = Check { host: "127.0.0.1", port, service: "", agent: AGENT, tls: true };
    assert_eq!(check.probe().await, Ok(Outcome::Success));
    let Ok(Outcome::Failure(said)) = Check { port: inner, ..check }.probe().await else {
        panic!("plain text is no TLS")
    };
    assert!(said.starts_with("error: failed to connect service at "), "{said}");
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_a_failure_with_the_servers_words() {
    let (port, _reporter, _tasks) = server().await;
    let said = "error: health rpc probe failed: code = 5 desc = service not registered";
    assert_eq!(ask(port, "shop.Cart").await, fails(said));
}

/// A service that is not the one that is asked for.
#[derive(Clone)]
struct Other;

impl NamedService for Other {
    const NAME: &'static str = "shop.Cart";
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Other {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<tonic::body::Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(tonic::body::Body::empty())))
    }
}

#[tokio::test]
async fn a_server_without_the_health_service_is_named_as_such() {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = incoming.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        Server::builder().add_service(Other).serve_with_incoming(incoming).await.unwrap();
    });
    let Ok(Outcome::Failure(said)) = ask(port, "").await else { panic!("no failure") };
    let wanted = "error: this server does not implement the grpc health protocol";
    assert!(said.starts_with(wanted), "{said}");
}

/// A server that says `words` to whoever connects and closes.
async fn says(words: &'static [u8]) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 1024];
            let _read = stream.read(&mut first).await;
            let _written = stream.write_all(words).await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn whoever_speaks_something_else_or_nothing_fails() {
    for words in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x00\x00\x04"] {
        let (port, _tasks) = says(words).await;
        let Ok(Outcome::Failure(said)) = ask(port, "").await else { panic!("no failure") };
        assert!(said.starts_with("error: health rpc probe failed: "), "{said}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let Ok(Outcome::Failure(said)) = ask(port, "").await else { panic!("no failure") };
    assert!(said.starts_with("error: failed to connect service at \"127.0.0.1:"), "{said}");
    assert!(said.ends_with("connect: connection refused"), "{said}");
}

#[test]
fn an_answer_is_judged_by_its_status_and_its_message() {
    let answer = |status: Option<&str>, body: &'static [u8]| Answer {
        status: status.map(str::to_owned),
        message: "why".to_owned(),
        body: Bytes::from_static(body),
    };
    let unhealthy =
        |word: &str| Outcome::Failure(format!("service unhealthy (responded with \"{word}\")"));
    let other = "an answer that is no health check's";
    for (status, body, found) in [
        (Some("0"), &b"\0\0\0\0\x02\x08\x01"[..], Outcome::Success),
        (Some("0"), b"\0\0\0\0\0", unhealthy("UNKNOWN")),
        (Some("0"), b"\0\0\0\0\x02\x08\x03", unhealthy("SERVICE_UNKNOWN")),
        (Some("0"), b"\0\0\0\0\x02\x08\x09", unhealthy(other)),
        (Some("0"), b"\0\0\0\0\x09\x08\x01", unhealthy(other)),
        (Some("0"), b"\x01\0\0\0\x02\x08\x01", unhealthy(other)),
        (Some("0"), b"", unhealthy(other)),
        (
            Some("14"),
            b"",
            Outcome::Failure("error: health rpc probe failed: code = 14 desc = why".to_owned()),
        ),
        (
            None,
            b"\0\0\0\0\x02\x08\x01",
            Outcome::Failure(
                "error: health rpc probe failed: this is not an answer of gRPC".to_owned(),
            ),
        ),
    ] {
        assert_eq!(judge(&answer(status, body)), found, "{status:?} {body:?}");
    }
}
