//! Waiting for what the cluster says, by watches; for what it does not say, by looking again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::status;

/// How long anything that should happen may take on a machine that also compiles.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Watches the one object of this name.
pub fn named(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Watches all objects.
pub fn all() -> watcher::Config {
    watcher::Config::default()
}

/// Watches until the objects are as wanted and gives them back, by name; the error says what was waited for and what
/// there was instead.
pub async fn until<K, F>(
    api: Api<K>,
    which: watcher::Config,
    what: &str,
    wanted: F,
) -> Result<Vec<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    F: FnMut(&[K]) -> bool,
{
    until_within(PATIENCE, api, which, what, wanted).await
}

/// [`until`] with a time of its own.
pub async fn until_within<K, F>(
    patience: Duration,
    api: Api<K>,
    which: watcher::Config,
    what: &str,
    mut wanted: F,
) -> Result<Vec<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    F: FnMut(&[K]) -> bool,
{
    let mut known = Known { objects: BTreeMap::new(), listed: false };
    let seen = async {
        let mut events = pin!(watcher(api, which).default_backoff());
        loop {
            match events.try_next().await {
                Ok(Some(event)) => known.take(event),
                // It tries again: a cluster may be away for a while.
                Err(_) => continue,
                Ok(None) => bail!("the watch ended"),
            }
            let objects = known.all();
            if known.listed && wanted(&objects) {
                return Ok(objects);
            }
        }
    };
    let outcome = tokio::time::timeout(patience, seen).await;
    outcome.unwrap_or_else(|_| bail!("not seen within {} s", patience.as_secs())).with_context(
        || {
            let names: Vec<_> = known.objects.keys().collect();
            format!("wait for {what}; there were: {names:?}")
        },
    )
}

/// Looks again and again until there is what is looked for: for what no watch tells.
pub async fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    let found = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.with_context(|| format!("wait for {what}"))
}

struct Known<K> {
    objects: BTreeMap<String, K>,
    listed: bool,
}

impl<K: Resource + Clone> Known<K> {
    fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => {
                self.objects.clear();
                self.listed = false;
            }
            Event::InitDone => self.listed = true,
            Event::InitApply(object) | Event::Apply(object) => {
                self.objects.insert(key(&object), object);
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
            }
        }
    }

    fn all(&self) -> Vec<K> {
        self.objects.values().cloned().collect()
    }
}

fn key(object: &impl Resource) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Waits until the node is Ready.
pub async fn node_ready(client: Client, name: &str) -> Result<Node> {
    let what = format!("node {name} to be Ready");
    let nodes = until(Api::all(client), named(name), &what, |found| {
        found.iter().any(|node| status::node_condition(node, "Ready") == "True")
    });
    nodes.await?.pop().context("the node that is Ready")
}
