//! What providers have said, for as long as it holds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Logins, ProviderError};
use crate::flight::{Flights, Turn};

/// The longest time for which an answer is kept, whatever it says of itself: a duration must not overflow the clock.
const LONGEST: Duration = Duration::from_hours(24 * 365);
/// Answers that are kept. Any author of a pod can have another image asked for.
const KEPT: usize = 10_000;

/// For which images an answer holds (`cacheKeyType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(super) enum Scope {
    /// The one that was asked for.
    Image,
    /// All of its registry.
    Registry,
    /// All.
    Global,
}

/// What a provider said.
pub(super) struct Answer {
    pub(super) logins: Result<Logins, ProviderError>,
    pub(super) scope: Scope,
    pub(super) holds: Duration,
}

/// All answers, and whose turn it is to ask. No password in them is ever written down.
#[derive(Default)]
pub(crate) struct Answers {
    known: Mutex<HashMap<String, Known>>,
    turns: Flights,
}

struct Known {
    logins: Result<Logins, ProviderError>,
    came: Instant,
    ends: Instant,
}

impl Answers {
    pub(super) async fn turn(&self, key: &str) -> Turn {
        self.turns.turn(key).await
    }

    /// What is known: it holds still, or came after it was asked for, by someone else who asked.
    pub(super) fn find(
        &self,
        key: &str,
        image: &str,
        asked: Instant,
    ) -> Option<Result<Logins, ProviderError>> {
        let now = Instant::now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // The order of the kubelet.
        [Scope::Image, Scope::Registry, Scope::Global].iter().find_map(|scope| {
            let known = known.get(&place(key, image, *scope))?;
            let is_good = now < known.ends || asked < known.came;
            is_good.then(|| known.logins.clone())
        })
    }

    pub(super) fn keep(&self, key: &str, image: &str, answer: Answer) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, one| now < one.ends);
        }
        if known.len() >= KEPT {
            known.clear();
        }
        // What does not hold is for those who wait for it now, who have asked for this image.
        let scope = if answer.holds.is_zero() { Scope::Image } else { answer.scope };
        let ends = now + answer.holds.min(LONGEST);
        known.insert(place(key, image, scope), Known { logins: answer.logins, came: now, ends });
    }
}

fn place(key: &str, image: &str, scope: Scope) -> String {
    let registry = image.split('/').next().unwrap_or_default();
    match scope {
        Scope::Image => format!("{key} image {image}"),
        Scope::Registry => format!("{key} registry {registry}"),
        Scope::Global => format!("{key} global"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(scope: Scope, seconds: u64) -> Answer {
        Answer { logins: Ok(Logins::new()), scope, holds: Duration::from_secs(seconds) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_time_and_for_what_it_is_for() {
        for (scope, expected) in [
            (Scope::Image, [true, false, false]),
            (Scope::Registry, [true, true, false]),
            (Scope::Global, [true, true, true]),
        ] {
            let answers = Answers::default();
            answers.keep("k", "r.io/a", answer(scope, 60));
            tokio::time::advance(Duration::from_secs(1)).await;
            let holds = ["r.io/a", "r.io/b", "s.io/a"]
                .map(|image| answers.find("k", image, Instant::now()).is_some());
            assert_eq!(holds, expected, "{scope:?}");
            assert!(answers.find("other", "r.io/a", Instant::now()).is_none());
            tokio::time::advance(Duration::from_secs(60)).await;
            assert!(answers.find("k", "r.io/a", Instant::now()).is_none(), "{scope:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_hold_is_for_those_who_waited_for_it() {
        let answers = Answers::default();
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        answers.keep("k", "r.io/a", answer(Scope::Global, 0));
        assert!(answers.find("k", "r.io/a", before).is_some());
        assert!(answers.find("k", "r.io/b", before).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(answers.find("k", "r.io/a", Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_answers_are_kept_than_have_room() {
        let answers = Answers::default();
        for number in 0..=KEPT {
            answers.keep("k", &format!("r.io/{number}"), answer(Scope::Image, 60));
        }
        assert_eq!(answers.known.lock().unwrap().len(), 1);
        answers.keep("k", "r.io/forever", answer(Scope::Image, u64::MAX));
        assert!(answers.find("k", "r.io/forever", Instant::now()).is_some());
    }
}
