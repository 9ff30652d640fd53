//! An API server on a loopback socket: pods, their watch, their status, Events; and the faults that a test asks for.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::objects::{self, Asked, Objects, Tokens};

/// What happens to a request instead of being served.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A `Status` of this code; `Retry-After: 0` with it.
    Code(u16),
    /// The connection ends in the middle of the body.
    Cut,
    /// A watch that begins and at once says 410 Gone.
    Gone,
    /// No answer, ever.
    Silence,
}

#[derive(Default)]
struct Inner {
    tokens: Tokens,
    objects: Objects,
    pods: BTreeMap<String, Value>,
    version: u64,
    events: Vec<Value>,
    faults: VecDeque<(Method, &'static str, Fault)>,
    requests: Vec<(Method, String, Value)>,
}

/// The server. Ended when dropped.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<(&'static str, Value)>,
    /// Counts what happened, for those who wait.
    pulse: watch::Sender<u64>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            changes: broadcast::channel(1024).0,
            pulse: watch::channel(0).0,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, _tasks: tasks }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.read_timeout = Some(Duration::from_secs(300));
        kube::Client::try_from(config).unwrap()
    }

    /// The next request of this method whose path contains `path` meets the fault.
    pub(crate) fn fail(&self, method: Method, path: &'static str, fault: Fault) {
        self.shared.inner.lock().unwrap().faults.push_back((method, path, fault));
    }

    /// Makes or changes an object that is no pod; its kind in the plural.
    pub(crate) fn put(&self, plural: &'static str, object: Value) {
        self.shared.inner.lock().unwrap().objects.put(plural, object);
    }

    /// Objects of this kind, with their names.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        self.shared.inner.lock().unwrap().objects.all(plural)
    }

    /// Removes it.
    pub(crate) fn take(&self, plural: &'static str, name: &str) {
        self.shared.inner.lock().unwrap().objects.take(plural, "default", name);
    }

    /// The first service-account token ends after so many seconds; those after it live long.
    pub(crate) fn tokens_live(&self, seconds: i64) {
        self.shared.inner.lock().unwrap().tokens.first = seconds;
    }

    pub(crate) fn apply(&self, pod: Value) {
        self.shared.apply(pod);
    }

    /// What `kubectl delete` does: the pod is told to end within `grace` seconds.
    pub(crate) fn delete(&self, name: &str, grace: u64) {
        let mut pod = self.pod(name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.shared.apply(pod);
    }

    /// What `kubectl delete --force` does.
    pub(crate) fn remove(&self, name: &str) {
        self.shared.remove(name);
    }

    /// Takes a pod away while nobody is told.
    pub(crate) fn lose(&self, name: &str) {
        self.shared.inner.lock().unwrap().pods.remove(name);
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.shared.inner.lock().unwrap().pods.get(name).cloned()
    }

    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let inner = self.shared.inner.lock().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        inner.events.iter().map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
    }

    pub(crate) fn requests(&self, method: &Method, path: &str) -> Vec<(String, Value)> {
        let inner = self.shared.inner.lock().unwrap();
        let meant =
            inner.requests.iter().filter(|(known, at, _)| known == method && at.contains(path));
        meant.map(|(_, at, body)| (at.clone(), body.clone())).collect()
    }

    /// All that was asked of what `path` is in, in order: the methods and the bodies.
    pub(crate) fn requests_of(&self, path: &str) -> Vec<(Method, Value)> {
        let inner = self.shared.inner.lock().unwrap();
        let meant = inner.requests.iter().filter(|(_, at, _)| at.contains(path));
        meant.map(|(method, _, body)| (method.clone(), body.clone())).collect()
    }

    /// Waits until `seen` gives something. A test that waits in vain fails with what the server has.
    pub(crate) async fn until<T>(&self, what: &str, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        let mut pulse = self.shared.pulse.subscribe();
        let wait = async {
            loop {
                pulse.borrow_and_update();
                if let Some(found) = seen(self) {
                    return found;
                }
                pulse.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), wait).await {
            Ok(found) => found,
            Err(_) => {
                let inner = self.shared.inner.lock().unwrap();
                panic!("{what}: {:#?} {:#?}", inner.pods, inner.requests)
            }
        }
    }

    /// Waits until the pod's status has `value` at `pointer`.
    pub(crate) async fn status(&self, name: &str, pointer: &str, value: &str) -> Value {
        let what = format!("{name} {pointer} = {value}");
        self.until(&what, |api| {
            let pod = api.pod(name)?;
            (pod.pointer(&format!("/status{pointer}"))? == value).then_some(pod)
        })
        .await
    }
}

impl Shared {
    fn beat(&self) {
        self.pulse.send_modify(|count| *count += 1);
    }

    fn apply(&self, mut pod: Value) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        pod["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let kind =
            if inner.pods.insert(name, pod.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        // Sent under the lock, so that watchers see changes in their order.
        _ = self.changes.send((kind, pod));
        drop(inner);
        self.beat();
    }

    fn remove(&self, name: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        let version = inner.version.to_string();
        if let Some(mut pod) = inner.pods.remove(name) {
            pod["metadata"]["resourceVersion"] = json!(version);
            _ = self.changes.send(("DELETED", pod));
        }
        drop(inner);
        self.beat();
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let fault = {
        let mut inner = shared.inner.lock().unwrap();
        inner.requests.push((parts.method.clone(), path.clone(), body.clone()));
        let hit = inner
            .faults
            .iter()
            .position(|(method, part, _)| *method == parts.method && path.contains(part));
        hit.and_then(|at| inner.faults.remove(at)).map(|(_, _, fault)| fault)
    };
    shared.beat();
    match fault {
        Some(Fault::Code(code)) => refuse(code, "as the test asked"),
        Some(Fault::Cut) => cut(),
        Some(Fault::Gone) => {
            line("ERROR", &status(410, "too old resource version")).into_response()
        }
        Some(Fault::Silence) => std::future::pending().await,
        None if parts.method == Method::GET && Asked::of(&path).is_some() => {
            let asked = Asked::of(&path).unwrap();
            let objects = &shared.inner.lock().unwrap().objects;
            if path.contains("watch=true") {
                return objects.watch(asked);
            }
            axum_json(&objects.list(&asked)).into_response()
        }
        None if path.contains("watch=true") => {
            watch_pods(&shared, path.contains("sendInitialEvents=true"))
        }
        None => answer(&shared, &parts.method, parts.uri.path(), &body),
    }
}

fn answer(shared: &Shared, method: &Method, path: &str, body: &Value) -> Response {
    let path = objects::relative(path);
    let parts: Vec<&str> = path.split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["pods"]) => list(shared),
        ("POST", ["namespaces", _, "pods"]) => create(shared, body),
        ("PATCH", ["namespaces", _, "pods", name, "status"]) => patch(shared, name, body),
        ("DELETE", ["namespaces", _, "pods", name]) => delete(shared, name, body),
        ("POST", ["namespaces", _, "events"]) => {
            shared.inner.lock().unwrap().events.push(body.clone());
            shared.beat();
            (StatusCode::CREATED, axum_json(body)).into_response()
        }
        ("POST", ["namespaces", _, "serviceaccounts", _, "token"]) => {
            let token = shared.inner.lock().unwrap().tokens.give(body);
            (StatusCode::CREATED, axum_json(&token)).into_response()
        }
        ("POST", ["namespaces", _, "podcertificaterequests"]) => {
            let made = shared.inner.lock().unwrap().objects.make("podcertificaterequests", body);
            shared.beat();
            (StatusCode::CREATED, axum_json(&made)).into_response()
        }
        ("GET", ["namespaces", _, plural, name] | [plural, name]) => {
            match shared.inner.lock().unwrap().objects.find(plural, name) {
                Some(object) => axum_json(&object).into_response(),
                None => refuse(404, &format!("{plural} \"{name}\" not found")),
            }
        }
        _ => refuse(404, "not found"),
    }
}

fn list(shared: &Shared) -> Response {
    let inner = shared.inner.lock().unwrap();
    let items: Vec<&Value> = inner.pods.values().collect();
    let version = inner.version.to_string();
    axum_json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}))
        .into_response()
}

fn patch(shared: &Shared, name: &str, body: &Value) -> Response {
    let Some(mut pod) = shared.inner.lock().unwrap().pods.get(name).cloned() else {
        return refuse(404, &format!("pods \"{name}\" not found"));
    };
    if body["metadata"]["uid"] != pod["metadata"]["uid"] {
        return refuse(422, "Pod is invalid: metadata.uid: Invalid value: field is immutable");
    }
    for (key, value) in body["status"].as_object().unwrap() {
        pod["status"][key] = value.clone();
        // Of a strategic merge patch: what is to go.
        if let Some(list) = pod["status"][key].as_array_mut() {
            list.retain(|one| one["$patch"] != "delete");
        }
    }
    shared.apply(pod.clone());
    axum_json(&pod).into_response()
}

/// An object has its UID from the API server, whatever it says.
fn create(shared: &Shared, body: &Value) -> Response {
    let mut pod = body.clone();
    let (name, version) = {
        let inner = shared.inner.lock().unwrap();
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), inner.version)
    };
    if shared.inner.lock().unwrap().pods.contains_key(&name) {
        return refuse(409, &format!("pods \"{name}\" already exists"));
    }
    pod["metadata"]["uid"] = json!(format!("made-{version}"));
    pod["status"] = json!({"phase": "Pending"});
    shared.apply(pod.clone());
    (StatusCode::CREATED, axum_json(&pod)).into_response()
}

fn delete(shared: &Shared, name: &str, body: &Value) -> Response {
    let Some(pod) = shared.inner.lock().unwrap().pods.get(name).cloned() else {
        return refuse(404, &format!("pods \"{name}\" not found"));
    };
    if body["preconditions"]["uid"] != pod["metadata"]["uid"] {
        return refuse(409, "Precondition failed: UID in precondition: a, UID in object meta: b");
    }
    shared.remove(name);
    axum_json(&pod).into_response()
}

/// The pods that there are, where asked for, then every change until the server ends.
fn watch_pods(shared: &Shared, initial: bool) -> Response {
    let inner = shared.inner.lock().unwrap();
    let changes = shared.changes.subscribe();
    let mut first = Vec::new();
    if initial {
        first.extend(inner.pods.values().map(|pod| line("ADDED", pod)));
        let mark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {
            "resourceVersion": inner.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}});
        first.push(line("BOOKMARK", &mark));
    }
    let later = stream::unfold(changes, |mut changes| async move {
        let (kind, pod) = changes.recv().await.ok()?;
        Some((line(kind, &pod), changes))
    });
    let lines = futures::StreamExt::chain(stream::iter(first), later);
    Body::from_stream(futures::StreamExt::map(lines, |line| {
        Ok::<_, std::io::Error>(Bytes::from(line))
    }))
    .into_response()
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": ""})
}

fn refuse(code: u16, message: &str) -> Response {
    (StatusCode::from_u16(code).unwrap(), [("retry-after", "0")], axum_json(&status(code, message)))
        .into_response()
}

/// Promises more than it gives.
fn cut() -> Response {
    let broken = stream::iter([Ok(Bytes::from("{\"kind\":")), Err(std::io::Error::other("cut"))]);
    Body::from_stream(broken).into_response()
}

fn axum_json(value: &Value) -> impl IntoResponse + use<> {
    ([("content-type", "application/json")], value.to_string())
}
