//! A proxy between an agent and the real API server: it passes everything on, notes what is asked, and breaks what it is told to.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use kube::Client;
use nodule_e2e::{access, test::Test, wait};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::asked::{Asked, Fault, Store};
use crate::proxied::{self, Feed};

/// No request of a node is longer.
const LONGEST: usize = 4 << 20;

struct Shared {
    client: Client,
    store: Mutex<Store>,
    /// For the watches of pods that begin now: those that run have the one that was here then.
    feed: Mutex<watch::Sender<Feed>>,
}

/// The proxy; dropped, it ends. It needs a worker thread of the runtime's: tests block the first one while a program runs.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl Proxy {
    /// Has the test's agent talk through a new proxy: starts it again.
    pub(crate) async fn before(test: &mut Test<'_>) -> Result<Self> {
        let path = test.agent.file("kubeconfig");
        let client = access::client(&path).await?;
        let (store, feed) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { client, store, feed });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the test, which sees what it lacks.
            let _ended = axum::serve(listener, app).await;
        });
        let text = fs::read_to_string(&path)?.replace(&test.cluster.server()?, &url);
        fs::write(&path, text)?;
        test.agent.stop()?;
        test.agent.start_again()?;
        Ok(Self { shared, _server: server })
    }

    /// The next requests of this kind meet these faults.
    pub(crate) fn fail(&self, what: &str, name: &str, faults: impl IntoIterator<Item = Fault>) {
        self.shared.store().fail(what, name, faults.into_iter().collect());
    }

    /// Nothing fails any more.
    pub(crate) fn mend(&self) {
        self.shared.store().mend();
    }

    /// The next request of each kind that there is meets this fault.
    pub(crate) fn fail_each(&self, fault: Fault) {
        self.shared.store().fail_each(fault);
    }

    /// Waits until each of these has met it.
    pub(crate) async fn each_met(&self, kinds: &[&str]) -> Result<()> {
        let met = || self.shared.store().kinds_met();
        let all = || kinds.iter().all(|kind| met().contains(*kind)).then_some(());
        let seen = wait::found("each kind of request to fail", all).await;
        seen.with_context(|| format!("those that did: {:?}", met()))
    }

    /// Waits until every fault that was foretold has been met.
    pub(crate) async fn all_met(&self) -> Result<()> {
        let met = || self.shared.store().is_met().then_some(());
        wait::found("every fault to be met", met).await
    }

    /// All that has been asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.store().all().to_vec()
    }

    /// The watches of pods that run say nothing more.
    pub(crate) fn hush(&self) {
        self.shared.feed().send_replace(Feed::Silent);
    }

    /// The watches of pods that run end, as what they go on from is no longer kept.
    pub(crate) fn expire(&self) {
        self.end(Feed::Expired);
    }

    /// The watches of pods that run break off.
    pub(crate) fn cut(&self) {
        self.end(Feed::Cut);
    }

    fn end(&self, end: Feed) {
        let feed = std::mem::take(&mut *self.shared.feed());
        feed.send_replace(end);
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self) -> MutexGuard<'_, watch::Sender<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LONGEST).await.unwrap_or_default();
    let (what, name) = proxied::named(&parts.method, &parts.uri);
    let asked = Asked {
        what: what.clone(),
        name,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        at: Instant::now(),
        answered: None,
    };
    let (place, fault) = shared.store().note(asked);
    let response = match fault {
        Some(Fault::Code(code)) => proxied::refusal(code),
        Some(Fault::Lost) => {
            let _done = forward(&shared.client, parts, body).await;
            return proxied::broken_off();
        }
        None => forward(&shared.client, parts, body).await,
    };
    shared.store().answered(place, response.status().as_u16());
    if ["list pods", "watch pods"].contains(&what.as_str()) {
        let feed = shared.feed().subscribe();
        return response.map(|body| proxied::fed(body, feed));
    }
    response
}

async fn forward(client: &Client, mut parts: axum::http::request::Parts, body: Bytes) -> Response {
    parts.headers.remove(header::HOST);
    let body = kube::client::Body::from(body);
    match client.send(Request::from_parts(parts, body)).await {
        Ok(response) => response.map(Body::new),
        Err(_) => proxied::refusal(502),
    }
}
