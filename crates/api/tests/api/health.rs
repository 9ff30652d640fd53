//! `GET /healthz`, behind TLS and on the node itself.

use std::sync::atomic::Ordering;

use hyper::StatusCode;
use nodule_api::{Health, HealthServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::served::Served;

#[tokio::test]
async fn checks_are_told_one_by_one_if_asked() {
    let served = Served::open().await;
    let mut client = served.admin().await;
    let passed = "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n";
    for (path, status, text) in [
        ("/healthz", StatusCode::OK, "ok"),
        ("/healthz?verbose", StatusCode::OK, passed),
        ("/healthz?verbose=true", StatusCode::OK, passed),
        ("/healthz/ping", StatusCode::OK, "ok"),
        ("/healthz/log", StatusCode::OK, "ok"),
        ("/healthz/syncloop", StatusCode::OK, "ok"),
        ("/healthz/other", StatusCode::NOT_FOUND, "404 page not found\n"),
    ] {
        assert_eq!(client.get(path).await, (status, text.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_check_that_fails_is_named() {
    let served = Served::open().await;
    served.works.store(false, Ordering::SeqCst);
    let mut client = served.admin().await;
    let failed = "[+]ping ok\n[+]log ok\n[-]syncloop failed: stuck\nhealthz check failed\n";
    for (path, status, text) in [
        ("/healthz", StatusCode::INTERNAL_SERVER_ERROR, failed),
        ("/healthz/syncloop", StatusCode::INTERNAL_SERVER_ERROR, "internal server error: stuck\n"),
        ("/healthz/ping", StatusCode::OK, "ok"),
    ] {
        assert_eq!(client.get(path).await, (status, text.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn on_the_node_it_is_plain_http() {
    let server = HealthServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (port, stop) = (server.port(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(server.run(Health::new(|| Ok(())), stop.clone()));

    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );

    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}
