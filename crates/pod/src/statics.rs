//! The pods of the node's own places: what a place says, and which of them may begin.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use nodule_manifest::{MANIFEST, Set};
use tokio::sync::watch;
use tracing::warn;

use crate::events::Kind;
use crate::mirror::{self, Mirrored};
use crate::runner::{Runner, Then};
use crate::source::{Origin, STATICS};
use crate::worker::Desired;

impl Runner {
    /// Takes over what a place of static pods has now, and tells what is wrong there, once.
    pub(crate) fn replace(&mut self, source: &'static str, set: Set) {
        let known = self.sets.get(source).map(|set| set.troubles.clone()).unwrap_or_default();
        for (manifest, trouble) in &set.troubles {
            if known.get(manifest) != Some(trouble) {
                warn!(
                    manifest,
                    trouble, "static pod manifest cannot be used: what runs of it runs on"
                );
                self.host.events.say_of_node(Kind::Warning, "FailedValidation", trouble);
            }
        }
        self.sets.insert(source, set);
        self.settle();
        self.remove_left();
    }

    /// Whether the API server and every place of static pods have said which pods they have.
    pub(crate) fn knows_all(&self) -> bool {
        self.mirrors.borrow().synced && STATICS.iter().all(|place| self.sets.contains_key(place))
    }

    /// Ends the static pods that are not wanted, and begins those that are and whose name is free.
    pub(crate) fn settle(&mut self) {
        let running = self.desired.iter().map(|(uid, desired)| (uid, desired.borrow()));
        let unwanted = running.filter(|(uid, desired)| {
            let Origin::Static(source) = Origin::of(&desired.pod) else { return false };
            let Some(set) = self.sets.get(source) else { return false };
            let manifest =
                desired.pod.metadata.annotations.as_ref().and_then(|all| all.get(MANIFEST));
            let unclear = manifest.is_some_and(|manifest| set.troubles.contains_key(manifest));
            let wanted = set.pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(*uid));
            !wanted && !unclear && !desired.removed
        });
        let unwanted: Vec<String> = unwanted.map(|(uid, _)| uid.clone()).collect();
        unwanted.iter().for_each(|uid| self.stop(uid, None, Then::Remove));
        let wanted: Vec<Pod> = self.sets.values().flat_map(|set| set.pods.clone()).collect();
        for pod in wanted {
            // It may be one that ends: `forget` settles again.
            if self.is_free(&pod) {
                self.take_on(Arc::new(pod));
            }
        }
    }

    /// Whether nothing is left of a pod of this name: two never share what goes by it.
    pub(crate) fn is_free(&self, pod: &Pod) -> bool {
        let name = mirror::name(pod);
        let taken = |desired: &watch::Sender<Desired>| mirror::name(&desired.borrow().pod) == name;
        !self.desired.values().any(taken)
    }

    /// Has a static pod mirrored.
    pub(crate) fn mirror(&self, pod: &Arc<Pod>, ending: bool) {
        let mirrored = Mirrored { pod: Arc::clone(pod), ending };
        self.mirrors.send_modify(|mirrors| {
            mirrors.pods.insert(mirror::name(pod), mirrored);
        });
    }
}
