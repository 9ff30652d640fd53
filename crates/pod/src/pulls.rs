//! How far a pod is with each of its images, and when a failure is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::moved;
use crate::pull::{Outcome, Ready};
use crate::restart::{FIRST, LONGEST, later};
use crate::status::Waiting;
use crate::want::Want;

/// Images of the pod for one purpose. Owned and changed by its worker.
#[derive(Debug)]
pub(crate) struct Pulls<R = Ready> {
    known: BTreeMap<Want, Pull<R>>,
}

#[derive(Debug)]
enum Pull<R> {
    Running,
    Ready(Arc<R>),
    Failed { waiting: Waiting, since: Timestamp, wait: Duration, told: bool },
}

/// For so long a failure is shown as what it is; then as the wait for the next try.
const SHOWN: Duration = Duration::from_secs(2);

/// What is to be done about an image.
#[derive(Debug)]
pub(crate) enum Need<R = Ready> {
    /// Use it: the image is taken, whoever needs it next asks again.
    Ready(Arc<R>),
    /// Begin to fetch it.
    Fetch,
    /// Someone fetches it.
    Wait,
    /// Wait until then; `news` once, when the wait for the next try begins.
    Failed { waiting: Waiting, until: Timestamp, news: bool },
}

impl<R> Default for Pulls<R> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<R> Pulls<R> {
    /// What to do about what is wanted. An answer of `Fetch` must be followed by `done`.
    pub(crate) fn need(&mut self, want: &Want, now: Timestamp) -> Need<R> {
        match self.known.get_mut(want) {
            Some(Pull::Ready(_)) => match self.known.remove(want) {
                Some(Pull::Ready(ready)) => Need::Ready(ready),
                _ => Need::Wait,
            },
            Some(Pull::Running) => Need::Wait,
            Some(Pull::Failed { waiting, since, .. }) if now < later(*since, SHOWN) => {
                Need::Failed { waiting: waiting.clone(), until: later(*since, SHOWN), news: false }
            }
            Some(Pull::Failed { waiting, since, wait, told }) if now < later(*since, *wait) => {
                let news = !std::mem::replace(told, true);
                Need::Failed {
                    waiting: back_off(&want.image, waiting),
                    until: later(*since, *wait),
                    news,
                }
            }
            Some(Pull::Failed { .. }) | None => Need::Fetch,
        }
    }

    /// The clock was set.
    pub(crate) fn move_by(&mut self, by: SignedDuration) {
        for pull in self.known.values_mut() {
            if let Pull::Failed { since, .. } = pull {
                *since = moved(*since, by);
            }
        }
    }

    /// Gives back an image that was taken and not run.
    pub(crate) fn keep(&mut self, want: Want, ready: Arc<R>) {
        self.known.insert(want, Pull::Ready(ready));
    }

    /// Notes that a fetch has begun. The wait that a failure before it earned is kept for the next one.
    pub(crate) fn begin(&mut self, want: &Want) -> Duration {
        match self.known.insert(want.clone(), Pull::Running) {
            Some(Pull::Failed { wait, .. }) => (wait * 2).min(LONGEST),
            _ => FIRST,
        }
    }

    /// Notes how it ended; `wait` is what `begin` gave.
    pub(crate) fn done(&mut self, want: Want, outcome: Outcome<R>, wait: Duration, now: Timestamp) {
        let pull = match outcome {
            Ok(ready) => Pull::Ready(Arc::new(ready)),
            Err(waiting) => Pull::Failed { waiting, since: now, wait, told: false },
        };
        self.known.insert(want, pull);
    }
}

/// A failure in the words of the time until the next try: the cause stays in sight.
fn back_off(image: &str, failure: &Waiting) -> Waiting {
    match failure.reason {
        "ErrImagePull" | "RegistryUnavailable" => Waiting {
            reason: "ImagePullBackOff",
            message: format!(
                "Back-off pulling image \"{image}\": {}: {}",
                failure.reason, failure.message
            ),
        },
        _ => failure.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want() -> Want {
        let image = Some("a".to_owned());
        Want::of(&k8s_openapi::api::core::v1::Container { image, ..Default::default() })
    }

    fn failure(reason: &'static str) -> Waiting {
        Waiting { reason, message: "no route".to_owned() }
    }

    #[test]
    fn a_pull_that_fails_is_tried_again_after_ten_seconds_and_then_half_as_often() {
        let mut pulls = Pulls::<Ready>::default();
        let mut now = Timestamp::from_second(1000).unwrap();
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            assert!(matches!(pulls.need(&want(), now), Need::Fetch));
            let wait = pulls.begin(&want());
            assert!(matches!(pulls.need(&want(), now), Need::Wait));
            pulls.done(want(), Err(failure("ErrImagePull")), wait, now);
            let Need::Failed { waiting, until, news } = pulls.need(&want(), now) else {
                panic!("failed")
            };
            assert_eq!((waiting.reason, until, news), ("ErrImagePull", later(now, SHOWN), false));
            let Need::Failed { waiting, until: due, news } = pulls.need(&want(), until) else {
                panic!("failed")
            };
            assert_eq!(due, later(now, Duration::from_secs(seconds)));
            assert_eq!(waiting.reason, "ImagePullBackOff");
            assert_eq!(waiting.message, "Back-off pulling image \"a\": ErrImagePull: no route");
            assert!(news);
            assert!(matches!(pulls.need(&want(), until), Need::Failed { news: false, .. }));
            now = due;
        }
    }

    #[test]
    fn a_failure_that_is_no_pull_keeps_its_reason() {
        let mut pulls = Pulls::<Ready>::default();
        let now = Timestamp::from_second(1000).unwrap();
        let wait = pulls.begin(&want());
        pulls.done(want(), Err(failure("ErrImageNeverPull")), wait, now);
        let Need::Failed { waiting, .. } = pulls.need(&want(), now) else { panic!("failed") };
        assert_eq!(waiting, failure("ErrImageNeverPull"));
    }
}
