//! What becomes of a container's runs, as its pod's record keeps it: pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated};

use crate::clock::moved;
use crate::ephemeral;
use crate::order::{Role, find};
use crate::probe::health::Health;
use crate::record::{Record, Run};
use crate::resize;
use crate::restart::{
    Backoff, Next, Verdict, may_restart, may_restart_init, next, verdict, verdict_init,
};

/// When a container whose turn it is runs.
#[derive(Debug, PartialEq)]
pub(crate) enum Due {
    /// At once, with the back-off that is known: no run of it counts that has ended.
    First(Option<Backoff>),
    /// Again, after the run that ended then.
    Again(Timestamp, Next),
    /// It has done what it was there for.
    Never,
}

impl Record {
    /// When a container whose turn it is runs. `longest` is the longest wait between two runs.
    pub(crate) fn due(
        &self,
        role: Role,
        container: &Container,
        now: Timestamp,
        longest: Duration,
    ) -> Due {
        let history = self.containers.get(&container.name);
        let known = history.and_then(|history| history.backoff.as_ref());
        let counted = history.and_then(|history| Some((history, history.counted()?)));
        let Some((history, end)) =
            counted.and_then(|(history, run)| Some((history, run.end.as_ref()?)))
        else {
            return Due::First(known.cloned());
        };
        let set = history.run.as_ref().map_or(SignedDuration::ZERO, |run| run.set);
        let Some(spec) = self.pod.spec.as_ref() else { return Due::Never };
        let code = history.verdict(end.exit_code);
        let again = match role {
            Role::Init => may_restart_init(spec, container, code),
            Role::Regular => may_restart(spec, container, code),
            Role::Ephemeral => false,
        };
        if !again {
            return Due::Never;
        }
        let finished = end.finished_at.as_ref().map_or(now, |time| moved(time.0, set));
        Due::Again(finished, next(container, known, finished, now, longest))
    }

    /// Begins a run of a container; or takes up the newest one, which was begun and never ended. Its number if it is new.
    pub(crate) fn begin(
        &mut self,
        container: &Container,
        id: String,
        image_id: String,
        backoff: Option<Backoff>,
    ) -> Option<u32> {
        let history = self.containers.entry(container.name.clone()).or_default();
        history.again = false;
        if history.run.as_ref().is_some_and(|run| run.end.is_none()) {
            return None;
        }
        let earlier = history.run.take();
        let attempt = earlier.as_ref().map_or(0, |run| run.attempt.saturating_add(1));
        history.last = earlier.and_then(|run| run.end).or(history.last.take());
        history.backoff = backoff;
        history.health = Some(Health::default());
        history.run = Some(Run {
            attempt,
            id,
            image: container.image.clone().unwrap_or_default(),
            image_id,
            process: None,
            user: None,
            resources: Some(resize::resources(container)),
            started: None,
            end: None,
            set: SignedDuration::ZERO,
        });
        Some(attempt)
    }

    /// Notes that its guest has begun. False if that was known.
    pub(crate) fn started(&mut self, container: &str, at: Option<Timestamp>) -> bool {
        let Some(run) = self.run_mut(container) else { return false };
        let first = run.started.is_none();
        run.started = at;
        if first {
            run.set = SignedDuration::ZERO;
        }
        first
    }

    /// Notes the end of the newest run, and what follows from it for the others.
    pub(crate) fn close(&mut self, container: &str, end: ContainerStateTerminated) {
        let Some(run) = self.run_mut(container) else { return };
        run.started = run.started.or(end.started_at.as_ref().map(|time| time.0));
        run.end = Some(end);
        run.set = SignedDuration::ZERO;
        self.restarting |= self.asks_for_all(container);
        self.make_place(container);
    }

    /// Whether the end of a container, which is noted, asks for all of them to run again.
    fn asks_for_all(&self, container: &str) -> bool {
        let spec = self.pod.spec.as_ref();
        let end = self.counted(container).and_then(|run| run.end.as_ref());
        let found = find(&self.pod, container);
        spec.zip(end).zip(found).is_some_and(|((spec, end), (role, container))| {
            let verdict = match role {
                Role::Init => verdict_init(spec, &container, end.exit_code),
                Role::Regular | Role::Ephemeral => verdict(spec, &container, end.exit_code),
            };
            verdict == Verdict::All
        })
    }

    /// The pod begins anew: no earlier run counts, but of ephemeral containers. To be called when none of them is open.
    pub(crate) fn begin_anew(&mut self) {
        let pod = Arc::clone(&self.pod);
        let all = self.containers.iter_mut().filter(|(name, _)| !ephemeral::is_one(&pod, name));
        for (_, history) in all {
            history.again = history.run.is_some();
        }
        self.restarting = false;
    }
}
