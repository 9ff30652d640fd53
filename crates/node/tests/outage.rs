//! How often, and how soon, an API server is asked that is away: in time that the test turns.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests, which clippy does not know as such, may fail as tests do"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::client::Body;
use nodule_node::{Clients, Config, Inputs, Outputs, Periods, Reserved, Thresholds};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::service_fn;

/// An API server without a socket. It keeps the last object of each kind as it was sent.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// No request is answered; each fails after this time.
    away: Option<Duration>,
    node: Value,
    lease: Value,
    version: u64,
    asked: Vec<(Instant, String)>,
    refusals: VecDeque<u16>,
}

impl Server {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = service_fn(move |request| server.clone().serve(request));
        kube::Client::new(service, "default")
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body: Value =
            serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        if query.contains("watch=true") {
            return std::future::pending().await;
        }
        self.inner().asked.push((Instant::now(), format!("{} {path}", parts.method)));
        let away = self.inner().away;
        if let Some(wait) = away {
            sleep(wait).await;
            return Err(std::io::Error::other("away"));
        }
        let refusal = self.inner().refusals.pop_front();
        let (code, answer) = match refusal {
            Some(code) => (code, Value::Null),
            None => self.inner().answer(&parts.method, path, query, body),
        };
        Ok(Response::builder().status(code).body(answer.to_string().into_bytes().into()).unwrap())
    }

    /// When something was asked, in order.
    fn times(&self, what: &str) -> Vec<Instant> {
        self.inner().asked.iter().filter(|(_, asked)| asked == what).map(|(at, _)| *at).collect()
    }

    fn asked_since(&self, since: Instant) -> usize {
        self.inner().asked.iter().filter(|(at, _)| *at >= since).count()
    }

    fn ready(&self) -> Value {
        self.inner().node["status"]["conditions"][3]["status"].clone()
    }
}

impl Inner {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: Value) -> (u16, Value) {
        self.version += 1;
        let version = self.version.to_string();
        if query.contains("fieldSelector") {
            let list =
                json!({"metadata": {"resourceVersion": version}, "items": [self.node.clone()]});
            return (200, list);
        }
        let kept = match path {
            _ if path.contains("/nodes") => &mut self.node,
            _ if path.contains("/leases") => &mut self.lease,
            _ => return (201, body),
        };
        match *method {
            Method::GET if kept.is_null() => (404, json!({"code": 404, "reason": "NotFound"})),
            Method::GET => (200, kept.clone()),
            Method::PATCH => {
                kept["status"]["conditions"] = body["status"]["conditions"].clone();
                (200, kept.clone())
            }
            _ => {
                *kept = body;
                kept["metadata"]["uid"] = json!("u");
                (200, kept.clone())
            }
        }
    }
}

fn config() -> Config {
    Config {
        name: "n1".to_owned(),
        hostname: "n1".to_owned(),
        addresses: Vec::new(),
        port: 10250,
        root: "/".into(),
        os: "wasi".to_owned(),
        arch: "wasm32-wasi".to_owned(),
        wasi: "p1_p2".to_owned(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        provider_id: None,
        max_pods: 110,
        reserved: Reserved::default(),
        eviction: Thresholds::default(),
        strict_groups: true,
        version: "0.0.0".to_owned(),
        periods: Periods::default(),
    }
}

fn start(server: &Server) -> JoinSet<Infallible> {
    let (_, problems) = watch::channel(Vec::new());
    let (_, unconfined) = watch::channel(std::collections::BTreeSet::new());
    let (_, images) = watch::channel(Vec::new());
    let clients =
        Clients { node: server.client(), lease: server.client(), events: server.client() };
    let run = nodule_node::run(
        clients,
        config(),
        Inputs { problems, unconfined, images },
        Outputs { registered: watch::Sender::new(None), starved: watch::Sender::new(Vec::new()) },
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { panic!("ended: {:?}", run.await.unwrap_err()) });
    tasks
}

/// However it is away: it refuses at once, or it lets requests hang.
async fn is_ready_again_within_twenty_seconds(away: Duration) {
    let server = Server::default();
    let _tasks = start(&server);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(server.ready(), "True");

    server.inner().away = Some(away);
    let gone = Instant::now();
    sleep(Duration::from_secs(60)).await;
    let asked = server.asked_since(gone);
    assert!((4..60).contains(&asked), "{asked}");

    server.inner().node["status"]["conditions"][3]["status"] = json!("Unknown");
    server.inner().away = None;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(server.ready(), "True");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_is_asked_seldom_and_found_soon() {
    is_ready_again_within_twenty_seconds(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_asked_seldom_and_found_soon() {
    is_ready_again_within_twenty_seconds(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_api_server_is_left_alone_for_a_second() {
    let server = Server::default();
    server.inner().refusals = VecDeque::from([429, 429]);
    let tasks = start(&server);
    sleep(Duration::from_secs(10)).await;
    drop(tasks);
    let times = server.times("POST /api/v1/nodes");
    assert!(times.len() > 1, "{times:?}");
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_secs(1), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_a_little_later_than_every_quarter_of_its_duration() {
    let server = Server::default();
    let _tasks = start(&server);
    sleep(Duration::from_secs(600)).await;
    let renewals =
        server.times("PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1");
    assert!(renewals.len() >= 57, "{}", renewals.len());
    for pair in renewals.windows(2) {
        let between = pair[1] - pair[0];
        assert!(
            between >= Duration::from_secs(10) && between < Duration::from_millis(10_500),
            "{between:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_status_is_written_every_few_minutes() {
    let server = Server::default();
    let _tasks = start(&server);
    sleep(Duration::from_secs(3600)).await;
    let written = server.times("PATCH /api/v1/nodes/n1/status");
    assert!((8..=24).contains(&written.len()), "{}", written.len());
}
