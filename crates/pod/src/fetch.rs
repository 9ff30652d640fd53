//! A container's image: whether it is here, on its way, or waits for another try.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use nodule_image::Purpose;

use crate::events::Kind;
use crate::notice::Fetched;
use crate::order::Role;
use crate::pull::{self, Asked, Ready};
use crate::pulls::Need;
use crate::status::Waiting;
use crate::want::Want;
use crate::worker::Worker;

impl Worker {
    /// The container's image if it is here; if not, it is on its way.
    pub(crate) fn image(&mut self, role: Role, container: &Container) -> Option<Arc<Ready>> {
        let want = Want::of(container);
        match self.pulls.need(&want, Timestamp::now()) {
            Need::Ready(ready) => return Some(ready),
            Need::Wait => {}
            Need::Fetch => self.fetch(role, container, want),
            Need::Failed { waiting, until, news } => {
                if news {
                    self.tell_back_off(&want, &waiting, Some(role.field(&container.name)));
                }
                self.waiting.insert(container.name.clone(), waiting);
                self.wake_at(until);
            }
        }
        None
    }

    /// Tells that the next pull of an image has to wait.
    pub(crate) fn tell_back_off(&self, want: &Want, waiting: &Waiting, field: Option<String>) {
        if waiting.reason == "ImagePullBackOff" {
            let message = format!("Back-off pulling image \"{}\"", want.image);
            let (events, pod) = (&self.host.events, &self.record.pod);
            events.say(pod, field.clone(), Kind::Normal, "BackOff", &message);
            events.say(pod, field, Kind::Warning, "Failed", "Error: ImagePullBackOff");
        }
    }

    fn fetch(&mut self, role: Role, container: &Container, want: Want) {
        let wait = self.pulls.begin(&want);
        let policy =
            container.image_pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned());
        let runs = self.record.containers.values().filter_map(|history| history.run.as_ref());
        let ran = runs.map(|run| run.image_id.clone()).collect();
        let field = Some(role.field(&container.name));
        let asked = Asked { want: want.clone(), ran, policy, field, purpose: Purpose::Run };
        let (host, pod) = (Arc::clone(&self.host), Arc::clone(&self.record.pod));
        self.fetches.spawn(async move {
            Fetched::Program(want, Box::new(pull::fetch(host, pod, asked).await), wait)
        });
    }
}
