//! ConfigMaps and Secrets that pods refer to: each watched alone, only while a pod refers to it, and forgotten after.
//!
//! A node may read an object that a pod bound to it names, and lists of just that one (the Node authorizer). [`Objects`] is
//! where pods ask; a [`Keeper`] runs the watches. Nobody waits: a pod that follows an object sees [`Answer::Unknown`] until
//! the API server has answered, and is told of every later answer. Read `follow.rs` for a pod's side.

mod follow;
mod keeper;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::{mpsc, watch};

pub(crate) use follow::{Follow, Known, Lack, of_volume, references};
pub(crate) use keeper::Keeper;

/// The kinds that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// In the words of the API server's "not found".
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    /// As the kubelet writes it where it misses a key.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What an object holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    /// `metadata.uid` and `metadata.resourceVersion`: another content has others.
    pub(crate) version: (String, String),
    /// What is given to the environment and to files.
    pub(crate) data: BTreeMap<String, Vec<u8>>,
    /// What is given to files only.
    pub(crate) binary: BTreeMap<String, Vec<u8>>,
    /// It never changes.
    pub(crate) immutable: bool,
}

/// What is known of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The API server has not answered yet.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    Found(Arc<Object>),
    /// The API server does not let this node read it, for this reason.
    Refused(String),
}

/// What a watch writes and pods read.
type Slot = watch::Sender<Answer>;

/// Where pods ask. Clones ask the same keeper.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    /// What is watched. A slot whose last reader is gone is removed by its watch.
    slots: Arc<Mutex<HashMap<Key, Arc<Slot>>>>,
    /// Unbounded: an entry for each object that begins to be referred to.
    begin: mpsc::UnboundedSender<(Key, Arc<Slot>)>,
}

impl Objects {
    /// The place to ask, and the keeper to run beside it. Without one, nothing can be read.
    pub(crate) fn new() -> (Self, Keeper) {
        let (begin, begun) = mpsc::unbounded_channel();
        let objects = Self { slots: Arc::default(), begin };
        let keeper = Keeper::new(objects.clone(), begun);
        (objects, keeper)
    }

    /// The object, watched for as long as the receiver lives.
    pub(crate) fn follow(&self, key: &Key) -> watch::Receiver<Answer> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(key) {
            return slot.subscribe();
        }
        let (slot, answers) = watch::channel(Answer::Unknown);
        let slot = Arc::new(slot);
        slots.insert(key.clone(), Arc::clone(&slot));
        if let Err(unsent) = self.begin.send((key.clone(), slot)) {
            let none = "this node has no API server to read it from".to_owned();
            unsent.0.1.send_replace(Answer::Refused(none));
        }
        answers
    }

    /// Lets go of an object that nobody follows. False if somebody has begun to meanwhile.
    fn forget(&self, key: &Key, slot: &Slot) -> bool {
        let mut slots = self.slots();
        let unused = slot.receiver_count() == 0;
        if unused {
            slots.remove(key);
        }
        unused
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<ConfigMap> for Object {
    fn from(map: ConfigMap) -> Self {
        let text = map.data.into_iter().flatten();
        Self {
            version: version(map.metadata.uid, map.metadata.resource_version),
            data: text.map(|(key, value)| (key, value.into_bytes())).collect(),
            binary: map.binary_data.into_iter().flatten().map(|(key, it)| (key, it.0)).collect(),
            immutable: map.immutable == Some(true),
        }
    }
}

impl From<Secret> for Object {
    fn from(secret: Secret) -> Self {
        Self {
            version: version(secret.metadata.uid, secret.metadata.resource_version),
            data: secret.data.into_iter().flatten().map(|(key, it)| (key, it.0)).collect(),
            binary: BTreeMap::new(),
            immutable: secret.immutable == Some(true),
        }
    }
}

fn version(uid: Option<String>, version: Option<String>) -> (String, String) {
    (uid.unwrap_or_default(), version.unwrap_or_default())
}
