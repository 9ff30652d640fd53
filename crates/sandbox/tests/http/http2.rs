//! HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinHandle;

use super::site::{plan, plans};

type Sender = SendRequest<Empty<Bytes>>;

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(address: SocketAddr, window: u32) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's connection ends with its runtime")]
    let task = tokio::spawn(connection);
    (sender, task)
}

async fn get(sender: &Sender, target: &str) -> hyper::Result<Response<Incoming>> {
    let request = Request::get(format!("http://test{target}")).body(Empty::new()).unwrap();
    sender.clone().send_request(request).await
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn requests_share_a_connection() {
    for plan in plans() {
        let (_site, address) = plan.start_at();
        runtime().block_on(async {
            let (sender, _task) = connect(address, 1 << 20).await;
            let answers =
                (0..20).map(|_| async { text(get(&sender, "/hello").await.unwrap()).await });
            let answers = futures::future::join_all(answers).await;
            assert_eq!(answers, ["hello"; 20]);
        });
    }
}

#[test]
fn what_runs_is_answered_when_the_server_stops() {
    let (mut site, address) = plan().start_at();
    runtime().block_on(async {
        let (sender, task) = connect(address, 1 << 20).await;
        let late = get(&sender, "/late?1000").await.unwrap();
        site.stop();
        assert_eq!(text(late).await, "begun ended");
        // GOAWAY: the connection ends, without an error.
        task.await.unwrap().unwrap();
    });
    assert_eq!(site.wait().exit().code, 0);
}

#[test]
fn who_never_reads_does_not_keep_the_guest() {
    let (mut site, address) =
        plan().with(|http| (http.concurrency, http.request_timeout) = (1, 2000)).start_at();
    runtime().block_on(async {
        let (sender, _task) = connect(address, 0).await;
        let response = get(&sender, "/big?1000").await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::task::spawn_blocking(move || site.serves()).await.unwrap();
    });
}
