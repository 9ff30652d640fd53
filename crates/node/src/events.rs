use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    backoff::Retry,
    config::Config,
    reach::Reach,
    server::{Failure, Server},
};

/// Events of cluster-scoped objects are kept here.
const NAMESPACE: &str = "default";
/// The source that tools look for in a node's events.
const COMPONENT: &str = "kubelet";
/// How many events wait while the API server is away; more are dropped.
const QUEUE: usize = 64;

/// What happened to the node.
#[derive(Debug)]
pub(crate) struct Note {
    reason: &'static str,
    message: String,
    weight: Weight,
    at: Timestamp,
}

/// The type of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weight {
    Normal,
    Warning,
}

/// Takes notes; never waits.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::Sender<Note>);

/// Where notes are put, and where [`deliver`] takes them from.
pub(crate) fn queue() -> (Events, mpsc::Receiver<Note>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Events(sender), receiver)
}

impl Events {
    pub(crate) fn note(&self, weight: Weight, reason: &'static str, message: String) {
        if self.0.try_send(Note { reason, message, weight, at: Timestamp::now() }).is_err() {
            debug!(reason, "event dropped: too many wait");
        }
    }
}

/// Creates an Event for each note, in order. One that the API server will not have is dropped.
pub(crate) async fn deliver(
    client: Client,
    config: Arc<Config>,
    mut queue: mpsc::Receiver<Note>,
) -> Infallible {
    let events = Api::<Event>::namespaced(client.clone(), NAMESPACE);
    let server = Server::new(client, config.periods.request, Reach::default());
    while let Some(note) = queue.recv().await {
        let event = note.event(&config.name);
        let mut retry = Retry::new(&config.periods);
        while let Err(failure) = server.ask(events.create(&PostParams::default(), &event)).await {
            if failure.is_final() {
                debug!(
                    reason = note.reason,
                    error = &failure as &dyn std::error::Error,
                    "event not taken"
                );
                break;
            }
            tokio::time::sleep(wait(&mut retry, &failure)).await;
        }
    }
    std::future::pending().await
}

fn wait(retry: &mut Retry, failure: &Failure) -> Duration {
    retry.wait().max(failure.retry_after())
}

impl Note {
    /// The name is made once per note, so that a second try of the same event is a conflict and not a second event.
    fn event(&self, node: &str) -> Event {
        let time = Time(self.at);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{node}.{:x}", self.at.as_nanosecond())),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                // The kubelet's events carry the name here, and that is where kubectl describe looks for them.
                uid: Some(node.to_owned()),
                ..ObjectReference::default()
            },
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.clone()),
            type_: Some(format!("{:?}", self.weight)),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(node.to_owned()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(node.to_owned()),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            ..Event::default()
        }
    }
}
