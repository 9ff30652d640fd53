//! A node for pods that really run.

use serde_json::{Value, json};

use crate::Agent;
use crate::api::Api;
use crate::guests::{DEAF, WAITS, exits, traps, writes};
use crate::registry::Registry;
use crate::root::Root;

/// WASI's `oflags`: the file is made, and must not be there.
const CREATE_NEW: u8 = 1 | 4;

/// A node with a registry that has the guests which these tests need.
pub(crate) struct Node {
    pub(crate) api: Api,
    pub(crate) registry: Registry,
    pub(crate) root: Root,
}

impl Node {
    pub(crate) async fn new() -> Self {
        let guests = [
            ("waits", WAITS.to_owned()),
            ("deaf", DEAF.to_owned()),
            ("done", exits(0)),
            ("fails", exits(3)),
            ("once", writes("been", CREATE_NEW, "here", 3)),
            ("says", writes("termination-log", 0, "these are the last words", 3)),
            ("traps", traps("something is wrong")),
        ];
        let guests: Vec<_> = guests.iter().map(|(name, wat)| (*name, wat.as_str())).collect();
        let registry = Registry::start(&guests).await;
        Self { api: Api::start().await, registry, root: Root::new() }
    }

    pub(crate) async fn agent(&self) -> Agent {
        Agent::with(&self.api, self.root.path(), &[&self.registry.host]).await
    }

    pub(crate) fn container(&self, name: &str, image: &str) -> Value {
        json!({
            "name": name, "image": self.registry.image(image), "imagePullPolicy": "IfNotPresent",
            "stdin": true,
        })
    }

    pub(crate) fn sidecar(&self, name: &str, image: &str) -> Value {
        let mut container = self.container(name, image);
        container["restartPolicy"] = json!("Always");
        container
    }

    /// The containers that were said to be stopped, in that order.
    pub(crate) fn killed(&self) -> Vec<String> {
        let events = self.api.events().into_iter();
        let killing = events.filter(|(reason, _)| reason == "Killing");
        killing.map(|(_, message)| message.replace("Stopping container ", "")).collect()
    }
}
