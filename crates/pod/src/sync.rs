//! What a pod that should run needs, step by step. Each step looks before it acts, and none waits for anything slow.
//!
//! Volumes, then for every container whose turn it is: its image, its configuration, its process.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use crate::events::Kind;
use crate::needs::{Needs, Unready};
use crate::order::{self, Role};
use crate::restart::{self, Backoff, Next};
use crate::run::Due;
use crate::status::Waiting;
use crate::volumes::Mounts;
use crate::want::Want;
use crate::worker::Worker;

impl Worker {
    /// Brings the pod nearer to running, as far as that goes now.
    pub(crate) async fn sync(&mut self) {
        if !self.admit() || (self.record.restarting && !self.clear()) {
            return;
        }
        let Some(needs) = self.needs() else { return };
        for (role, container) in order::turn(&self.record) {
            self.bring(role, &container, &needs).await;
            if self.holds_back(&container) {
                break;
            }
        }
    }

    /// Something that may mend itself went wrong: look again soon.
    pub(crate) fn again(&mut self) {
        self.wake_at(restart::later(Timestamp::now(), restart::FIRST));
    }

    async fn bring(&mut self, role: Role, container: &Container, needs: &Needs) {
        if self.live.contains_key(&container.name) {
            self.waiting.remove(&container.name);
            return;
        }
        let Some(backoff) = self.may_run(role, container) else { return };
        if !self.settle() {
            let message = "every user of podUsers is taken: allow more of them, or fewer pods";
            self.hold(container, "CreateContainerConfigError", message.to_owned());
            return self.again();
        }
        let Some(mounts) = self.has_images(role, container) else { return };
        let Some(ready) = self.image(role, container) else { return };
        if mounts == Mounts::OnTheWay {
            return self.pulls.keep(Want::of(container), ready);
        }
        let config = match self.configure(container, &ready, needs) {
            Ok(config) => config,
            // The image is taken up again when there is more to say.
            Err(Unready::Unknown) => {
                return self.pulls.keep(Want::of(container), ready);
            }
            Err(Unready::Config(message)) => {
                self.hold(container, "CreateContainerConfigError", message);
                return self.again();
            }
        };
        if self.create(container, &ready, backoff) {
            self.launch(container, config).await;
        }
    }

    /// Whether the container runs now: the back-off that this run earns, or none if it does not.
    fn may_run(&mut self, role: Role, container: &Container) -> Option<Option<Backoff>> {
        let now = Timestamp::now();
        match self.record.due(role, container, now, self.host.config.longest_backoff) {
            Due::First(known) => Some(known),
            Due::Never => None,
            Due::Again(finished, _) if self.shows_failed_hook(&container.name, finished) => None,
            Due::Again(_, Next::Now(backoff)) => Some(Some(backoff)),
            Due::Again(_, Next::At(due, wait)) => {
                self.crash_loop(container, wait.as_secs());
                self.wake_at(due);
                None
            }
        }
    }

    /// Sees that the pod has a user of its own, where this agent can make processes another user's.
    pub(crate) fn settle(&mut self) -> bool {
        let Some(users) = self.host.users.as_ref().filter(|_| self.record.user.is_none()) else {
            return true;
        };
        self.record.user = users.take();
        self.record.user.is_some()
    }

    fn crash_loop(&mut self, container: &Container, seconds: u64) {
        let (name, meta) = (&container.name, &self.record.pod.metadata);
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let pod = format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid));
        let wait = if seconds < 60 {
            format!("{seconds}s")
        } else {
            format!("{}m{}s", seconds / 60, seconds % 60)
        };
        let message = format!("back-off {wait} restarting failed container={name} pod={pod}");
        let waiting = Waiting { reason: "CrashLoopBackOff", message };
        if self.waiting.insert(name.clone(), waiting.clone()) != Some(waiting) {
            let message = format!("Back-off restarting failed container {name} in pod {pod}");
            self.say(name, Kind::Warning, "BackOff", &message);
        }
    }

    /// The container waits for a person, and that is told once.
    pub(crate) fn hold(&mut self, container: &Container, reason: &'static str, message: String) {
        let told = format!("Error: {message}");
        let waiting = Waiting { reason, message };
        if self.waiting.insert(container.name.clone(), waiting.clone()) != Some(waiting) {
            self.say(&container.name, Kind::Warning, "Failed", &told);
        }
    }
}
