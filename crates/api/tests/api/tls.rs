//! The handshake, and certificates that change.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use nodule_api::{Authorization, Config, Error, Pem, Server, Tls};
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use tokio::net::TcpStream;

use crate::api_server::ApiServer;
use crate::certificates::Authority;
use crate::client::Dial;
use crate::served::Served;

static ONLY_1_2: &[&SupportedProtocolVersion] = &[&TLS12];
static ONLY_1_3: &[&SupportedProtocolVersion] = &[&TLS13];

#[tokio::test]
async fn tls_1_2_and_1_3_with_http_1_1_only() {
    let served = Served::open().await;
    for (versions, expected) in
        [(ONLY_1_2, ProtocolVersion::TLSv1_2), (ONLY_1_3, ProtocolVersion::TLSv1_3)]
    {
        let dial =
            Dial { versions, protocols: &["h2", "http/1.1"], ..served.dial(Some(&served.admin)) };
        let stream = dial.tls().await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    }
    Dial { protocols: &["h2"], ..served.dial(None) }.tls().await.unwrap_err();
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_waiting() {
    let served = Served::open().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(("127.0.0.1", served.port)).await.unwrap());
    }
    assert_eq!(served.admin().await.get("/healthz").await.0, StatusCode::OK);
}

/// As a new file, whose time differs from the old one's for sure.
fn replace(path: &Path, text: &str, age: u64) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + age);
    fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_used_once_both_files_are_new() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("node.crt"), folder.path().join("node.key"));
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (old, new) = (first.server("localhost"), second.server("localhost"));
    replace(&certificate, &old.certificate, 1);
    replace(&key, &old.key, 1);
    let api_server = ApiServer::failing(500).await;
    let files = (Pem::File(certificate.clone()), Pem::File(key.clone()));
    let served =
        Served::with_certificate(Authorization::AlwaysAllow, &api_server, first, files.0, files.1)
            .await;
    let trusts_second = Dial { trusts: &second, ..served.dial(None) };

    served.dial(None).tls().await.unwrap();
    trusts_second.tls().await.unwrap_err();

    replace(&certificate, &new.certificate, 2);
    served.dial(None).tls().await.unwrap();
    replace(&key, &new.key, 2);
    trusts_second.tls().await.unwrap();
    served.dial(None).tls().await.unwrap_err();

    fs::remove_file(&key).unwrap();
    trusts_second.tls().await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_used_is_named() {
    let ca = Authority::new("servers");
    let (one, other) = (ca.server("localhost"), ca.server("localhost"));
    let text = |text: &str| Pem::Text(text.to_owned());
    let missing = || Pem::File("/nowhere/node.crt".into());
    for (certificate, key, client_ca, expected) in [
        (missing(), text(&one.key), None, "read /nowhere/node.crt"),
        (text(""), text(&one.key), None, "find the certificate in the given text"),
        (
            text(&one.certificate),
            text(&one.certificate),
            None,
            "find the private key in the given text",
        ),
        (text(&one.certificate), text(&other.key), None, "use the serving certificate"),
        (
            text(&one.certificate),
            text(&one.key),
            Some(text("x")),
            "find the client certificate authorities in the given text",
        ),
        (text(&one.certificate), text(&one.key), Some(missing()), "read /nowhere/node.crt"),
    ] {
        let tls = Tls { certificate, key, client_ca };
        let config =
            Config { tls, node: "node-1".to_owned(), authorization: Authorization::Webhook };
        let bound = Server::bind("127.0.0.1:0".parse().unwrap(), config).await;
        match bound.err() {
            Some(Error::Tls(error)) => assert_eq!(error.to_string(), expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let served = Served::open().await;
    let identity = served.servers.server("localhost");
    let tls = Tls {
        certificate: Pem::Text(identity.certificate),
        key: Pem::Text(identity.key),
        client_ca: None,
    };
    let config = Config { tls, node: "node-1".to_owned(), authorization: Authorization::Webhook };
    let address = format!("127.0.0.1:{}", served.port);
    let error = Server::bind(address.parse().unwrap(), config).await.err().unwrap();
    assert_eq!(error.to_string(), format!("listen on {address}"));
}
