//! The server that a container is taken for: on the pod's address, with the answers that a test asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Default)]
struct Inner {
    /// By path; 200 where none is said, silence where it is 0.
    answers: HashMap<String, u16>,
    asked: Vec<(String, HeaderMap)>,
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    /// Counts the requests, for those who wait.
    pulse: watch::Sender<usize>,
}

/// The server. Ended when dropped.
pub(crate) struct Peer {
    pub(crate) port: u16,
    shared: Shared,
    _tasks: JoinSet<()>,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared { inner: Arc::default(), pulse: watch::channel(0).0 };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, shared, _tasks: tasks }
    }

    /// From now on this path is answered so; never, where `code` is 0.
    pub(crate) fn answer(&self, path: &str, code: u16) {
        self.shared.inner.lock().unwrap().answers.insert(path.to_owned(), code);
    }

    /// The paths that were asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        let inner = self.shared.inner.lock().unwrap();
        inner.asked.iter().map(|(path, _)| path.clone()).collect()
    }

    /// The headers of the newest request for `path`.
    pub(crate) fn headers(&self, path: &str) -> HeaderMap {
        let inner = self.shared.inner.lock().unwrap();
        let newest = inner.asked.iter().rfind(|(asked, _)| asked == path);
        newest.map(|(_, headers)| headers.clone()).unwrap()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == path).count()
    }

    /// Waits until `path` was asked for so often.
    pub(crate) async fn until(&self, path: &str, count: usize) {
        let mut pulse = self.shared.pulse.subscribe();
        let asked = pulse.wait_for(|_| self.count(path) >= count);
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(60), asked).await;
        let Ok(Ok(_)) = outcome else { panic!("{path} {count} times: {:?}", self.asked()) };
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> StatusCode {
    let path = request.uri().path().to_owned();
    let code = {
        let mut inner = shared.inner.lock().unwrap();
        inner.asked.push((path.clone(), request.headers().clone()));
        inner.answers.get(&path).copied().unwrap_or(200)
    };
    shared.pulse.send_modify(|count| *count += 1);
    if code == 0 {
        return std::future::pending().await;
    }
    StatusCode::from_u16(code).unwrap()
}
