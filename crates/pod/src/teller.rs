//! What is told of a pod's image on its way.

use k8s_openapi::api::core::v1::Pod;

use crate::events::{Events, Kind};
use crate::host::Host;
use crate::pull::Asked;
use crate::status::Waiting;

/// Tells what becomes of an image, as Events of who asked.
pub(crate) struct Teller<'a> {
    events: &'a Events,
    pub(crate) pod: &'a Pod,
    pub(crate) asked: &'a Asked,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(host: &'a Host, pod: &'a Pod, asked: &'a Asked) -> Self {
        Self { events: &host.events, pod, asked }
    }

    pub(crate) fn say(&self, kind: Kind, reason: &'static str, message: &str) {
        self.events.say(self.pod, self.asked.field.clone(), kind, reason, message);
    }

    pub(crate) fn fail(&self, reason: &'static str, waiting: Waiting) -> Waiting {
        let message = if reason == "Failed" {
            format!("Error: {}", waiting.message)
        } else {
            waiting.message.clone()
        };
        self.say(Kind::Warning, reason, &message);
        waiting
    }
}
