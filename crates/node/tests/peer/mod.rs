//! An API server that knows one Node, its Lease and its events, and that fails as it is told to.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

/// How a request is answered instead of as it should be.
pub(crate) enum Fault {
    /// With this status code, and these seconds in `Retry-After` and in the details, as the API server says it.
    Code(u16, u32),
    /// The connection breaks off in the middle of the answer.
    Cut,
    /// Never.
    Silence,
}

/// A request that has arrived.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) what: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Store {
    node: Option<Value>,
    lease: Option<Value>,
    version: u64,
    faults: Vec<(String, VecDeque<Fault>)>,
    /// Fields of the Node's status that this API server does not know.
    unknown: Vec<String>,
}

/// What the handlers share.
struct Shared {
    store: Mutex<Store>,
    seen: mpsc::UnboundedSender<Seen>,
    /// The watch's events, as lines; all of them, so that a watch may begin late.
    events: watch::Sender<Vec<(u64, Value)>>,
}

pub(crate) struct Peer {
    pub(crate) url: String,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let store = Mutex::new(Store { version: 100, ..Store::default() });
        let shared =
            Arc::new(Shared { store, seen: sender, events: watch::Sender::new(Vec::new()) });
        let app = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, shared, _server: server }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// The next requests of this kind meet these faults.
    pub(crate) fn fail(&self, what: &str, faults: impl IntoIterator<Item = Fault>) {
        self.shared.store().faults.push((what.to_owned(), faults.into_iter().collect()));
    }

    pub(crate) fn drop_from_status(&self, field: &str) {
        self.shared.store().unknown.push(field.to_owned());
    }

    /// Waits for a request of this kind; says how many others came before it.
    pub(crate) async fn next(&mut self, what: &str) -> (Seen, Vec<String>) {
        let mut others = Vec::new();
        loop {
            let seen = self.seen.recv().await.expect("the server has not ended");
            if seen.what == what {
                return (seen, others);
            }
            others.push(seen.what);
        }
    }

    pub(crate) fn node(&self) -> Value {
        self.shared.store().node.clone().unwrap_or_default()
    }

    pub(crate) fn lease(&self) -> Value {
        self.shared.store().lease.clone().unwrap_or_default()
    }

    /// Somebody else writes the Node.
    pub(crate) fn change_node(&self, change: impl FnOnce(&mut Value)) {
        let mut node = self.node();
        change(&mut node);
        self.shared.put_node(node);
    }

    /// Somebody else writes the Lease.
    pub(crate) fn touch_lease(&self) {
        let mut store = self.shared.store();
        store.version += 1;
        let version = store.version.to_string();
        store.lease.as_mut().unwrap()["metadata"]["resourceVersion"] = json!(version);
    }

    /// Somebody else deletes the Node.
    pub(crate) fn delete_node(&self) {
        let mut store = self.shared.store();
        store.version += 1;
        let version = store.version;
        let mut node = store.node.take().unwrap();
        node["metadata"]["resourceVersion"] = json!(version.to_string());
        drop(store);
        self.shared.tell(version, "DELETED", &node);
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn put_node(&self, mut node: Value) -> Value {
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        node["apiVersion"] = json!("v1");
        node["kind"] = json!("Node");
        node["metadata"]["resourceVersion"] = json!(version.to_string());
        if node["metadata"]["uid"].is_null() {
            node["metadata"]["uid"] = json!(format!("uid-{version}"));
        }
        for field in &store.unknown {
            node["status"].as_object_mut().unwrap().remove(field);
        }
        let kind = if store.node.is_some() { "MODIFIED" } else { "ADDED" };
        store.node = Some(node.clone());
        drop(store);
        self.tell(version, kind, &node);
        node
    }

    fn tell(&self, version: u64, kind: &str, node: &Value) {
        self.events
            .send_modify(|events| events.push((version, json!({"type": kind, "object": node}))));
    }

    fn put_lease(&self, mut lease: Value) -> Value {
        let mut store = self.store();
        store.version += 1;
        lease["metadata"]["resourceVersion"] = json!(store.version.to_string());
        store.lease = Some(lease.clone());
        lease
    }

    fn fault(&self, what: &str) -> Option<Fault> {
        let mut store = self.store();
        let faults =
            store.faults.iter_mut().find(|(name, faults)| name == what && !faults.is_empty());
        faults.and_then(|(_, faults)| faults.pop_front())
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let object = match path.rsplit('/').next() {
        Some("status") => "status",
        _ if path.contains("/leases") => "lease",
        _ if path.contains("/events") => "event",
        _ => "node",
    };
    let what = match query.contains("watch=true") {
        true => "WATCH node".to_owned(),
        false if query.contains("fieldSelector") => "LIST node".to_owned(),
        false => format!("{} {object}", parts.method),
    };
    let _ = shared.seen.send(Seen { what: what.clone(), body: body.clone() });
    match shared.fault(&what) {
        Some(fault) => broken(fault).await,
        None => answer(&shared, &what, body, &query),
    }
}

async fn broken(fault: Fault) -> Response {
    match fault {
        Fault::Code(code, seconds) => {
            let mut response = refused(code, seconds);
            response.headers_mut().insert("retry-after", seconds.into());
            response
        }
        Fault::Cut => {
            let parts = [Ok(Bytes::from_static(b"{\"kind\"")), Err("cut")];
            Response::new(Body::from_stream(stream::iter(parts)))
        }
        Fault::Silence => std::future::pending().await,
    }
}

fn answer(shared: &Arc<Shared>, what: &str, body: Value, query: &str) -> Response {
    let (node, lease) = {
        let store = shared.store();
        (store.node.clone(), store.lease.clone())
    };
    match (what, node, lease) {
        ("POST node", None, _) => json_response(201, &shared.put_node(body)),
        ("POST node", Some(_), _) | ("POST lease", _, Some(_)) => refusal(409),
        ("GET node", Some(node), _) => json_response(200, &node),
        ("PATCH status", Some(mut node), _) => {
            merge(&mut node, body);
            json_response(200, &shared.put_node(node))
        }
        ("LIST node", node, _) => {
            let version = shared.store().version.to_string();
            let list = json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {"resourceVersion": version},
                "items": node.into_iter().collect::<Vec<_>>()});
            json_response(200, &list)
        }
        ("WATCH node", ..) => watch(shared, query),
        ("POST lease", _, None) => json_response(201, &shared.put_lease(body)),
        ("GET lease", _, Some(lease)) => json_response(200, &lease),
        ("PUT lease", _, Some(lease)) => {
            let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
            if version(&lease) == version(&body) {
                json_response(200, &shared.put_lease(body))
            } else {
                refusal(409)
            }
        }
        ("POST event", ..) => json_response(201, &body),
        _ => refusal(404),
    }
}

/// All that happened after the version that the client has seen.
fn watch(shared: &Arc<Shared>, query: &str) -> Response {
    let after =
        query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap_or("0");
    let state = (shared.events.subscribe(), after.parse::<u64>().unwrap());
    let lines = stream::unfold(state, async |(mut events, after)| {
        let next = |events: &Vec<(u64, Value)>| {
            events.iter().find(|(version, _)| *version > after).cloned()
        };
        let (version, event) = {
            let events = events.wait_for(|events| next(events).is_some()).await.ok()?;
            next(&events)?
        };
        Some((Bytes::from(format!("{event}\n")), (events, version)))
    });
    Response::new(Body::from_stream(lines.map(Ok::<_, Infallible>)))
}

fn json_response(code: u16, body: &Value) -> Response {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

fn refusal(code: u16) -> Response {
    refused(code, 0)
}

fn refused(code: u16, seconds: u32) -> Response {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "message": format!("told to say {code}"), "reason": reason,
        "details": {"retryAfterSeconds": seconds}});
    json_response(code, &status)
}

/// As much of a strategic merge patch as a Node's status needs.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if key == "conditions" {
                    merge_by_type(into.entry(key).or_insert_with(|| json!([])), &value);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, Value::Array(mut items)) => {
            items.retain(|item| item.get("$patch").is_none());
            *into = Value::Array(items);
        }
        (into, patch) => *into = patch,
    }
}

fn merge_by_type(into: &mut Value, patch: &Value) {
    let into = into.as_array_mut().unwrap();
    for item in patch.as_array().unwrap() {
        match into.iter_mut().find(|old| old["type"] == item["type"]) {
            Some(old) => *old = item.clone(),
            None => into.push(item.clone()),
        }
    }
}
