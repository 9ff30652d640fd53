//! Pods whose records are lost: restored where a source still has them, else ended.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tracing::{error, warn};

use crate::events::Kind;
use crate::left::Left;
use crate::record::{self, Folder, Record};
use crate::runner::Runner;

impl Runner {
    /// Keeps in mind a pod whose record cannot be read, until it is known whether a source has it.
    pub(crate) fn leave(&mut self, folder: Folder, error: &record::Error) {
        error!(
            error = error as &dyn std::error::Error,
            "pod record not read: made anew from what the pod's containers left"
        );
        let left = Left::of(folder, self.host.users.as_ref());
        self.host.users.iter().zip(left.user()).for_each(|(users, user)| users.recall(user));
        self.left.insert(left.folder().uid(), left);
    }

    /// Ends what is left of pods that no source has, once all of them have been heard.
    pub(crate) fn remove_left(&mut self) {
        if !self.knows_all() {
            return;
        }
        for (uid, left) in std::mem::take(&mut self.left) {
            let folder = left.folder().clone();
            if let Some(pod) = left.pod() {
                self.begin(folder, left.record(Arc::new(pod), Timestamp::now()));
                self.remove(&uid);
            } else if let Err(error) = folder.remove() {
                warn!(uid, error = &error as &dyn std::error::Error, "pod's folder not removed");
            }
        }
    }

    /// The record of a pod of which something is left.
    pub(crate) fn restore(&self, left: &Left, pod: Arc<Pod>) -> Record {
        let message = "The node's record of this pod could not be read: it was made anew from what \
                       its containers left";
        self.host.events.say(&pod, None, Kind::Warning, "RecordLost", message);
        let record = left.record(pod, Timestamp::now());
        self.claim(&record);
        record
    }
}
