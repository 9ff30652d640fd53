//! What the API server has beside pods: objects that are listed and watched one at a time, and tokens.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Where what is known here is.
const PLACES: [&str; 3] =
    ["/api/v1/", "/apis/certificates.k8s.io/v1/", "/apis/certificates.k8s.io/v1beta1/"];
/// What is listed and watched.
const KINDS: [&str; 4] = ["configmaps", "secrets", "services", "podcertificaterequests"];

/// A change: its version, the kind in the plural, what happened, and the object.
type Change = (u64, &'static str, &'static str, Value);

/// The objects of all kinds but pods.
pub(crate) struct Objects {
    version: u64,
    now: BTreeMap<(&'static str, String, String), Value>,
    history: Vec<Change>,
    changes: broadcast::Sender<Change>,
}

impl Default for Objects {
    fn default() -> Self {
        let changes = broadcast::channel(256).0;
        Self { version: 1, now: BTreeMap::new(), history: Vec::new(), changes }
    }
}

/// Which objects a request is about.
pub(crate) struct Asked {
    plural: &'static str,
    namespace: Option<String>,
    name: Option<String>,
    since: u64,
}

impl Asked {
    /// None if the request is about something else.
    pub(crate) fn of(path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let parts: Vec<&str> = relative(path).split('/').collect();
        let (namespace, plural) = match parts.as_slice() {
            ["namespaces", namespace, plural] => (Some((*namespace).to_owned()), *plural),
            [plural] => (None, *plural),
            _ => return None,
        };
        let plural = KINDS.into_iter().find(|known| *known == plural)?;
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == key).map(|(_, value)| value.to_owned())
        };
        let name = value("fieldSelector").and_then(|text| {
            let name = text.split("%2C").find_map(|field| field.strip_prefix("metadata.name%3D"));
            name.map(str::to_owned)
        });
        let since = value("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self { plural, namespace, name, since })
    }

    fn means(&self, (_, plural, _, object): &Change) -> bool {
        let is = |wanted: &Option<String>, field: &str| {
            wanted.as_ref().is_none_or(|wanted| object["metadata"][field] == **wanted)
        };
        *plural == self.plural && is(&self.namespace, "namespace") && is(&self.name, "name")
    }
}

/// A path without group and version.
pub(crate) fn relative(path: &str) -> &str {
    PLACES.into_iter().find_map(|place| path.strip_prefix(place)).unwrap_or(path)
}

impl Objects {
    /// Makes an object or changes it.
    pub(crate) fn put(&mut self, plural: &'static str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = match self.now.insert(key(plural, &object), object.clone()) {
            Some(_) => "MODIFIED",
            None => "ADDED",
        };
        self.tell(plural, kind, object);
    }

    /// Makes an object whose name is only begun.
    pub(crate) fn make(&mut self, plural: &'static str, object: &Value) -> Value {
        let mut object = object.clone();
        let begin = object["metadata"]["generateName"].as_str().unwrap();
        let name = format!("{begin}{}", self.version);
        object["metadata"]["name"] = json!(name);
        self.put(plural, object);
        self.find(plural, &name).unwrap()
    }

    /// Removes an object.
    pub(crate) fn take(&mut self, plural: &'static str, namespace: &str, name: &str) {
        self.version += 1;
        let gone = self.now.remove(&(plural, namespace.to_owned(), name.to_owned()));
        let mut object = gone.unwrap();
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(plural, "DELETED", object);
    }

    fn tell(&mut self, plural: &'static str, kind: &'static str, object: Value) {
        let change = (self.version, plural, kind, object);
        self.history.push(change.clone());
        _ = self.changes.send(change);
    }

    /// The object of this name, whatever its namespace.
    pub(crate) fn find(&self, plural: &str, name: &str) -> Option<Value> {
        let mut all = self.now.iter();
        let found = all.find(|((kind, _, own), _)| *kind == plural && own == name);
        found.map(|(_, object)| object.clone())
    }

    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        let all = self.now.iter().filter(|((kind, ..), _)| *kind == plural);
        all.map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn list(&self, asked: &Asked) -> Value {
        let all = self.now.iter().map(|((plural, ..), object)| (0, *plural, "", object.clone()));
        let items: Vec<Value> =
            all.filter(|one| asked.means(one)).map(|(.., object)| object).collect();
        let version = self.version.to_string();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
    }

    /// Every change after the version that is asked for, until the server ends.
    pub(crate) fn watch(&self, asked: Asked) -> Response {
        let past: Vec<Change> =
            self.history.iter().filter(|change| change.0 > asked.since).cloned().collect();
        let later = stream::unfold(self.changes.subscribe(), |mut changes| async move {
            Some((changes.recv().await.ok()?, changes))
        });
        let all = stream::iter(past).chain(later).filter(move |change| {
            let meant = asked.means(change);
            async move { meant }
        });
        let lines = all.map(|(_, _, kind, object)| {
            let line = format!("{}\n", json!({"type": kind, "object": object}));
            Ok::<_, std::io::Error>(Bytes::from(line))
        });
        Body::from_stream(lines).into_response()
    }
}

fn key(plural: &'static str, object: &Value) -> (&'static str, String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (plural, text("namespace"), text("name"))
}

/// A ConfigMap, or with encoded values a Secret.
pub(crate) fn holding(name: &str, data: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}, "data": data})
}

/// The service-account tokens that were given.
pub(crate) struct Tokens {
    /// Seconds that the first one lives.
    pub(crate) first: i64,
    given: u32,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { first: 3600, given: 0 }
    }
}

impl Tokens {
    /// Answers a TokenRequest. The text begins with the token's number.
    pub(crate) fn give(&mut self, request: &Value) -> Value {
        self.given += 1;
        let life = if self.given == 1 { self.first } else { 3600 };
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(life);
        let mut given = request.clone();
        given["spec"]["expirationSeconds"] = json!(life);
        given["status"] = json!({"token": format!("{} token", self.given), "expirationTimestamp": expires.to_string()});
        given
    }
}
