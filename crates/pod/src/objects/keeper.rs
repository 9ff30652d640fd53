//! The watches themselves: one task for each object that some pod refers to.

use std::fmt::Debug;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, ExponentialBackoff, watch_object};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, debug_span};

use super::{Answer, Key, Kind, Object, Objects, Slot};

/// The waits between two tries. The first are short: the API server refuses an object for the moment that it needs to
/// learn that a pod of this node refers to it.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// So many refusals in a row are an answer.
const REFUSALS: u32 = 4;

/// Runs the watches.
pub(crate) struct Keeper {
    objects: Objects,
    begun: mpsc::UnboundedReceiver<(Key, Arc<Slot>)>,
    watches: JoinSet<()>,
}

impl Keeper {
    pub(super) fn new(objects: Objects, begun: mpsc::UnboundedReceiver<(Key, Arc<Slot>)>) -> Self {
        Self { objects, begun, watches: JoinSet::new() }
    }

    /// Runs until nobody can ask any more, or a watch falls.
    pub(crate) async fn run(mut self, client: kube::Client) {
        loop {
            tokio::select! {
                begun = self.begun.recv() => match begun {
                    Some((key, slot)) => self.begin(&client, key, slot),
                    None => return,
                },
                Some(ended) = self.watches.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
            }
        }
    }

    fn begin(&mut self, client: &kube::Client, key: Key, slot: Arc<Slot>) {
        let span = debug_span!("object", kind = key.kind.word(), key.namespace, key.name);
        let objects = self.objects.clone();
        match key.kind {
            Kind::ConfigMap => {
                let answers = answers::<ConfigMap>(client, &key);
                self.watches.spawn(keep(objects, key, slot, answers).instrument(span));
            }
            Kind::Secret => {
                let answers = answers::<Secret>(client, &key);
                self.watches.spawn(keep(objects, key, slot, answers).instrument(span));
            }
        }
    }
}

type Answers = Pin<Box<dyn Stream<Item = watcher::Result<Answer>> + Send>>;

/// What the API server says of one object, for ever.
fn answers<K>(client: &kube::Client, key: &Key) -> Answers
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + k8s_openapi::Metadata
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    Object: From<K>,
{
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    let waits = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_jitter()
        .without_max_times();
    let seen = watch_object(api, &key.name).backoff(ExponentialBackoff::from(waits));
    seen.map(|seen| {
        seen.map(|found| {
            found.map_or(Answer::Absent, |object| Answer::Found(Arc::new(Object::from(object))))
        })
    })
    .boxed()
}

/// Keeps the slot true until nobody reads it.
async fn keep(objects: Objects, key: Key, slot: Arc<Slot>, answers: Answers) {
    let mut answers = pin!(answers);
    let mut refusals = 0;
    loop {
        let fixed = matches!(&*slot.borrow(), Answer::Found(object) if object.immutable);
        tokio::select! {
            () = slot.closed() => {
                if objects.forget(&key, &slot) {
                    return;
                }
            }
            Some(seen) = answers.next(), if !fixed => note(&slot, seen, &mut refusals),
        }
    }
}

/// What was known stays so while the API server is away.
fn note(slot: &Slot, seen: watcher::Result<Answer>, refusals: &mut u32) {
    match seen {
        Ok(answer) => {
            *refusals = 0;
            slot.send_if_modified(|known| {
                let news = *known != answer;
                *known = answer;
                news
            });
        }
        Err(error) => {
            debug!(error = &error as &dyn std::error::Error, "not read: tried again");
            let Some(refusal) = refusal(&error) else { return };
            *refusals = refusals.saturating_add(1);
            if *refusals >= REFUSALS {
                slot.send_if_modified(|known| refuse(known, refusal));
            }
        }
    }
}

/// An object that was seen is not taken back: the pod has it.
fn refuse(known: &mut Answer, refusal: String) -> bool {
    let first = matches!(known, Answer::Unknown);
    if first {
        *known = Answer::Refused(refusal);
    }
    first
}

/// What the API server says that it will not do, if it was there to say so.
fn refusal(error: &watcher::Error) -> Option<String> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchError(status) => status,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => return None,
    };
    (400..500).contains(&status.code).then(|| status.message.clone())
}
