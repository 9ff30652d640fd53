//! Containers that run but are not any more what their pod's spec says: they are stopped, and run again as it says now.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use crate::ending::own_grace;
use crate::order::{self, Role};
use crate::probe::health::Halt;
use crate::record::{Record, Stop};
use crate::resize::asks_for_restart;
use crate::restart::is_sidecar;
use crate::worker::Worker;

impl Worker {
    /// Has them stopped.
    pub(crate) fn renew(&mut self) {
        let names: Vec<String> = self.live.keys().cloned().collect();
        for name in names {
            let Some(run) = self.record.run(&name).filter(|run| run.started.is_some()) else {
                continue;
            };
            let attempt = run.attempt;
            let Some(message) = self.record.outdated(&name) else { continue };
            let grace = own_grace(&self.record.pod);
            let stop = Stop { since: Timestamp::now(), grace };
            let health = self.record.health_mut(&name, attempt);
            if let Some(health) = health.filter(|health| health.halt.is_none()) {
                health.halt = Some(Halt { stop, message });
                self.save();
            }
        }
    }
}

impl Record {
    /// Why the newest run of a container makes place for another, in the kubelet's words; none if it does not. An init container
    /// that is no sidecar does its work with what it began with.
    pub(crate) fn outdated(&self, name: &str) -> Option<String> {
        let (role, container) = order::find(&self.pod, name)?;
        if role == Role::Ephemeral || (role == Role::Init && !is_sidecar(&container)) {
            return None;
        }
        if self.is_of_another_image(&container) {
            return Some(format!("Container {name} definition changed, will be restarted"));
        }
        let has = self.run(name)?.resources.as_ref()?;
        asks_for_restart(&container, has)
            .then(|| format!("Container {name} resize requires restart, will be restarted"))
    }

    fn is_of_another_image(&self, container: &Container) -> bool {
        // Where records were lost nobody knows.
        let run = self.run(&container.name).filter(|run| !run.image.is_empty());
        run.is_some_and(|run| Some(&run.image) != container.image.as_ref())
    }

    /// After the end of a run: if it was stopped to make place for another, that one comes whatever the pod's policy says.
    pub(crate) fn make_place(&mut self, name: &str) {
        if self.halt(name).is_none() || self.outdated(name).is_none() {
            return;
        }
        if let Some(history) = self.containers.get_mut(name) {
            history.again = true;
        }
    }
}
