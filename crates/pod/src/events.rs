//! The pods' Events: said without waiting, posted by one task, repeated ones counted instead of posted again.
//!
//! Events are best effort, as the kubelet's: one that cannot be posted after a few tries, or that finds the queue full,
//! is dropped.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::correlate::{Correlator, Passed};

/// Events that wait to be posted.
const QUEUE: usize = 4096;
/// Events that are remembered to count their repetitions.
const REMEMBERED: usize = 1024;
/// The API server's limit is 1024 bytes (`k8s.io/kubernetes/pkg/apis/core/validation`, `NoteLengthLimit`).
const MESSAGE_LIMIT: usize = 1024;
/// Tries of one Event, and the wait before each but the first.
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_secs(2);

/// Whether an Event tells of normal work or of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Object {
    /// `Pod` or `Node`.
    pub(crate) kind: &'static str,
    /// Of the Event too.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What is said, and of what. Two equal ones are the same Event seen twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Said {
    pub(crate) object: Object,
    pub(crate) field: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Object {
    fn of(pod: &Pod) -> Self {
        Self {
            kind: "Pod",
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

impl Said {
    fn new(object: Object, kind: Kind, reason: Cow<'static, str>, message: &str) -> Self {
        let cut = message.get(..message.floor_char_boundary(MESSAGE_LIMIT)).unwrap_or(message);
        let annotations = BTreeMap::new();
        Self { object, field: None, kind, reason, message: cut.to_owned(), annotations }
    }
}

/// Where pods say their Events.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    /// None where there is no API server to keep Events: they are logged.
    queue: Option<mpsc::Sender<(Said, Timestamp)>>,
    node: String,
}

impl Events {
    /// The sayer, and the poster to run beside it.
    pub(crate) fn new(client: kube::Client, node: String) -> (Self, Poster) {
        let (queue, said) = mpsc::channel(QUEUE);
        let correlator = Correlator::default();
        let events = Self { queue: Some(queue), node: node.clone() };
        (events, Poster { client, node, said, correlator, known: Known::default() })
    }

    /// For a node without an API server.
    pub(crate) fn logged(node: String) -> Self {
        Self { queue: None, node }
    }

    /// Says something of a pod, or of the container at `field` of its spec. Never waits.
    pub(crate) fn say(
        &self,
        pod: &Pod,
        field: Option<String>,
        kind: Kind,
        reason: impl Into<Cow<'static, str>>,
        message: &str,
    ) {
        self.queue(Said { field, ..Said::new(Object::of(pod), kind, reason.into(), message) });
    }

    /// Says something of a pod, with annotations for those who count such Events.
    pub(crate) fn say_annotated(
        &self,
        pod: &Pod,
        annotations: &BTreeMap<String, String>,
        kind: Kind,
        reason: impl Into<Cow<'static, str>>,
        message: &str,
    ) {
        let said = Said::new(Object::of(pod), kind, reason.into(), message);
        self.queue(Said { annotations: annotations.clone(), ..said });
    }

    /// Says something of the node. As the kubelet's, such an Event is in the namespace `default` and names the node by its
    /// name, which it knows before its UID.
    pub(crate) fn say_of_node(&self, kind: Kind, reason: &'static str, message: &str) {
        let (name, uid) = (self.node.clone(), self.node.clone());
        let object = Object { kind: "Node", namespace: "default".to_owned(), name, uid };
        self.queue(Said::new(object, kind, reason.into(), message));
    }

    fn queue(&self, said: Said) {
        let Some(queue) = &self.queue else {
            info!(pod = said.object.name, reason = &*said.reason, said.message, "event");
            return;
        };
        if let Err(refused) = queue.try_send((said, Timestamp::now())) {
            let (said, _) = refused.into_inner();
            debug!(reason = &*said.reason, "event dropped");
        }
    }
}

/// Posts what is said, in order.
pub(crate) struct Poster {
    client: kube::Client,
    node: String,
    said: mpsc::Receiver<(Said, Timestamp)>,
    correlator: Correlator,
    known: Known,
}

/// The newest Events, to count repetitions.
#[derive(Default)]
struct Known {
    events: BTreeMap<Said, (String, i32)>,
    order: VecDeque<Said>,
}

impl Poster {
    /// Runs until every sayer is gone.
    pub(crate) async fn run(mut self) {
        while let Some((said, at)) = self.said.recv().await {
            let Some(passed) = self.correlator.pass(said, at) else { continue };
            for _ in 0..TRIES {
                match self.post(&passed, at).await {
                    Err(error) if may_pass(&error) => sleep(WAIT).await,
                    Err(error) => {
                        debug!(error = &error as &dyn std::error::Error, "event refused");
                        break;
                    }
                    Ok(()) => break,
                }
            }
        }
    }

    async fn post(&mut self, passed: &Passed, at: Timestamp) -> Result<(), kube::Error> {
        let said = &passed.said;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &said.object.namespace);
        if let Some((name, count)) = self.known.events.get_mut(&passed.key) {
            let again = serde_json::json!({
                "count": *count + 1, "lastTimestamp": Time(at), "message": said.message});
            match api.patch(name, &PatchParams::default(), &Patch::Merge(again)).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // The API server forgets Events after an hour: this is a new one then.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = event(said, at, &self.node);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // This very one: the answer to the try before was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        self.known.remember(passed.key.clone(), name);
        Ok(())
    }
}

/// Whether it may be otherwise at the next try: the API server is away, or has trouble. What it refuses stays refused.
fn may_pass(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429)
}

impl Known {
    fn remember(&mut self, said: Said, name: String) {
        if self.events.insert(said.clone(), (name, 1)).is_none() {
            self.order.push_back(said);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.events.remove(&oldest);
            }
        }
    }
}

fn event(said: &Said, at: Timestamp, node: &str) -> Event {
    // As the kubelet names them: the object and a moment, so that names sort by time. The object's is cut so that the
    // whole stays a DNS name.
    let object = &said.object;
    let stem = object.name.get(..object.name.floor_char_boundary(200)).unwrap_or_default();
    let name = format!("{stem}.{:x}", at.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(object.namespace.clone()),
            annotations: (!said.annotations.is_empty()).then(|| said.annotations.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(object.kind.to_owned()),
            // A node has none; its Events have.
            namespace: (object.kind != "Node").then(|| object.namespace.clone()),
            name: Some(object.name.clone()),
            uid: Some(object.uid.clone()),
            field_path: said.field.clone(),
            resource_version: None,
        },
        type_: Some(said.kind.as_str().to_owned()),
        reason: Some(said.reason.clone().into_owned()),
        message: Some(said.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node.to_owned()),
        }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
