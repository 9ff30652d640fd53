//! Against servers on loopback: hyper's over TCP and TLS, and such as hyper would never be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::probe::action::{Asker, get};

/// A server: its port, and the headers of all that it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn plain() -> Self {
        Self::start(None).await
    }

    async fn tls(config: ServerConfig) -> Self {
        Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&asked));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, tls.clone(), router.clone()));
            }
        });
        Self { port, asked, _tasks: tasks }
    }

    fn header(&self, name: &str) -> Option<String> {
        let asked = self.asked.lock().unwrap();
        Some(asked.last()?.get(name)?.to_str().unwrap().to_owned())
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    let service = TowerToHyperService::new(router);
    let builder = hyper::server::conn::http1::Builder::new();
    match tls {
        None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        }
    }
}

async fn answer(State(asked): State<Arc<Mutex<Vec<HeaderMap>>>>, request: Request) -> Response {
    asked.lock().unwrap().push(request.headers().clone());
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let to = |status: u16, location: String| {
        (StatusCode::from_u16(status).unwrap(), [("location", location)], "moved").into_response()
    };
    match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["status", code] => StatusCode::from_u16(code.parse().unwrap()).unwrap().into_response(),
        ["to", rest @ ..] => to(302, format!("/{}", rest.join("/"))),
        ["keeps", rest @ ..] => to(308, format!("/{}", rest.join("/"))),
        ["round"] => to(301, "/round".to_owned()),
        ["elsewhere"] => to(302, format!("http://localhost:{query}/status/500")),
        ["nowhere"] => to(302, "http://[".to_owned()),
        ["long"] => "x".repeat(64 << 10).into_response(),
        ["slow"] => std::future::pending().await,
        _ => "fine".into_response(),
    }
}

fn asks(port: u16, scheme: &str, path: &str) -> Get {
    with(port, scheme, path, &[])
}

fn with(port: u16, scheme: &str, path: &str, headers: &[(&str, &str)]) -> Get {
    let header =
        |(name, value): &(&str, &str)| HTTPHeader { name: (*name).into(), value: (*value).into() };
    let asked = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(port.into()),
        scheme: Some(scheme.to_owned()),
        http_headers: Some(headers.iter().map(header).collect()),
        ..HTTPGetAction::default()
    };
    let asker = Asker { address: "127.0.0.1", name: "kube-probe", version: "v1.36.3" };
    get(&asked, &Container::default(), asker).unwrap()
}

fn fails(said: &str) -> Attempt {
    Ok(Outcome::Failure(said.to_owned()))
}

#[tokio::test]
async fn the_status_decides_and_redirects_stay_within_the_host() {
    let server = Server::plain().await;
    let port = server.port;
    let moved = "Probe terminated redirects, Response body: ";
    let warning = |body: &str| Ok(Outcome::Warning(format!("{moved}{body}")));
    let stopped = format!("Get \"http://127.0.0.1:{port}/round\": stopped after 10 redirects");
    let nowhere = format!(
        "Get \"http://127.0.0.1:{port}/nowhere\": failed to parse Location header \"http://[\""
    );
    for (path, found) in [
        ("/", Ok(Outcome::Success)),
        ("/status/204", Ok(Outcome::Success)),
        ("/status/399", warning("")),
        ("/status/304", warning("")),
        ("/status/400", fails("HTTP probe failed with statuscode: 400")),
        ("/status/503", fails("HTTP probe failed with statuscode: 503")),
        ("/to/status/200", Ok(Outcome::Success)),
        ("/to/keeps/to/status/200", Ok(Outcome::Success)),
        ("/to/status/500", fails("HTTP probe failed with statuscode: 500")),
        ("/to/to/to/to/to/to/to/to/to/status/200", Ok(Outcome::Success)),
        ("/to/to/to/to/to/to/to/to/to/to/status/200", fails("")),
        ("/round", fails(&stopped)),
        ("/nowhere", fails(&nowhere)),
        (&format!("/elsewhere?{port}"), warning("moved")),
        ("/long", Ok(Outcome::Success)),
    ] {
        let seen = probe(&asks(port, "HTTP", path)).await;
        match (&seen, &found) {
            (Ok(Outcome::Failure(said)), Ok(Outcome::Failure(text))) if text.is_empty() => {
                assert!(said.ends_with("stopped after 10 redirects"), "{said}");
            }
            _ => assert_eq!(seen, found, "{path}"),
        }
    }
}

#[tokio::test]
async fn of_an_answer_ten_kibibytes_are_read() {
    let server = Server::plain().await;
    let answer = request(&asks(server.port, "HTTP", "/long")).await.unwrap();
    assert_eq!(answer.body.len(), 10 << 10);
}

#[tokio::test]
async fn what_is_sent_is_what_the_kubelet_sends_and_what_the_pod_says() {
    let server = Server::plain().await;
    probe(&asks(server.port, "HTTP", "/?a=b")).await.unwrap();
    let host = format!("127.0.0.1:{}", server.port);
    for (name, value) in [
        ("host", Some(host.as_str())),
        ("user-agent", Some("kube-probe/1.36")),
        ("accept", Some("*/*")),
        ("connection", Some("close")),
        ("accept-encoding", None),
    ] {
        assert_eq!(server.header(name).as_deref(), value, "{name}");
    }
    let headers = [("Host", "shop.example"), ("Accept", ""), ("X-Custom", "1")];
    probe(&with(server.port, "HTTP", "/to/status/200", &headers)).await.unwrap();
    for (name, value) in [("host", Some("shop.example")), ("accept", None), ("x-custom", Some("1"))]
    {
        assert_eq!(server.header(name).as_deref(), value, "{name}");
    }
}

#[test]
fn a_port_is_named_even_where_it_is_the_usual_one() {
    for (scheme, port) in [("http", 80), ("https", 443), ("http", 443)] {
        let get = asks(port, &scheme.to_uppercase(), "/?a");
        let said = format!("Get \"{scheme}://127.0.0.1:{port}/?a\": gone");
        assert_eq!(failed(&get.url, "gone"), said);
    }
}

/// A certificate for another name, that nobody has signed.
fn wrong(expired: bool) -> ServerConfig {
    let mut params = rcgen::CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    if expired {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

#[tokio::test]
async fn no_certificate_is_wrong() {
    for expired in [false, true] {
        let server = Server::tls(wrong(expired)).await;
        let found = probe(&asks(server.port, "HTTPS", "/to/status/200")).await;
        assert_eq!(found, Ok(Outcome::Success), "{expired}");
        let found = probe(&asks(server.port, "HTTPS", "/status/500")).await;
        assert_eq!(found, fails("HTTP probe failed with statuscode: 500"));
    }
}

#[tokio::test]
async fn http_in_place_of_tls_is_named() {
    let server = Server::plain().await;
    let said = request(&asks(server.port, "HTTPS", "/")).await.unwrap_err();
    assert!(said.ends_with("http: server gave HTTP response to HTTPS client"), "{said}");
}

/// A server that takes one request's first bytes, says `words`, and then closes or never does.
async fn says(words: &'static [u8], closes: bool) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 1024];
            let _read = stream.read(&mut first).await;
            let _written = stream.write_all(words).await;
            if !closes {
                held.push(stream);
            }
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure_and_ends() {
    for (words, said) in [
        (&b""[..], "EOF"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "EOF"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "end of file before message length reached",
        ),
        (b"SSH-2.0-server\r\n", "invalid HTTP version parsed"),
        (b"\x00\x00\x00\x00\x00", "invalid HTTP"),
    ] {
        let (port, _tasks) = says(words, true).await;
        let Ok(Outcome::Failure(found)) = probe(&asks(port, "HTTP", "/")).await else {
            panic!("{said}: no failure")
        };
        assert!(found.starts_with(&format!("Get \"http://127.0.0.1:{port}/\": ")), "{found}");
        assert!(found.contains(said), "{found}: {said}");
    }
}

#[tokio::test]
async fn a_server_that_closes_with_the_end_of_its_answer_has_answered() {
    let (port, _tasks) = says(b"HTTP/1.0 200 OK\r\n\r\nbody until the end", true).await;
    assert_eq!(probe(&asks(port, "HTTP", "/")).await, Ok(Outcome::Success));
}

#[tokio::test]
async fn nobody_who_listens_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let said = format!(
        "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(probe(&asks(port, "HTTP", "/")).await, fails(&said));
}

/// That it never ends by itself is shown by a second that answers meanwhile.
#[tokio::test]
async fn a_silent_server_holds_only_whoever_asks_it() {
    let server = Server::plain().await;
    let (half, _tasks) = says(b"HTTP/1.1 200 OK\r\n", false).await;
    for get in [asks(server.port, "HTTP", "/slow"), asks(half, "HTTP", "/")] {
        tokio::select! {
            found = probe(&get) => panic!("{found:?}"),
            found = async {
                probe(&asks(server.port, "HTTP", "/")).await
            } => assert_eq!(found, Ok(Outcome::Success)),
        }
        let late = tokio::time::timeout(Duration::from_millis(50), probe(&get)).await;
        assert!(late.is_err());
        let said = timed_out(&get);
        assert!(said.ends_with("(Client.Timeout exceeded while awaiting headers)"), "{said}");
    }
}
