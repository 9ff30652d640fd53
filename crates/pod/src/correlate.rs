//! Which Events are worth an object: like ones are made one, and what one object says without end is cut
//! (client-go's `EventCorrelator`, `tools/record/events_cache.go`, with its defaults).

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use crate::events::Said;

/// So many Events that differ in their message alone are told one by one within `INTERVAL`, further ones as one.
const SIMILAR: usize = 10;
const INTERVAL: SignedDuration = SignedDuration::from_secs(600);
/// An object may say so much at once, and one thing more each `REFILL`.
const BURST: u32 = 25;
const REFILL: SignedDuration = SignedDuration::from_secs(300);
/// Objects and kinds of Events that are remembered; all are forgotten together when there are more.
const REMEMBERED: usize = 4096;

/// What was said lately.
#[derive(Debug, Default)]
pub(crate) struct Correlator {
    similar: HashMap<Said, Similar>,
    spoken: HashMap<String, Spoken>,
}

/// The messages of Events that are alike in all else.
#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

/// What an object has left to say.
#[derive(Debug)]
struct Spoken {
    left: u32,
    since: Timestamp,
}

/// An Event to post.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) said: Said,
    /// Equal for what is one Event that is counted.
    pub(crate) key: Said,
}

impl Correlator {
    /// The Event to post for what is said: itself, the one that stands for many, or none.
    pub(crate) fn pass(&mut self, said: Said, at: Timestamp) -> Option<Passed> {
        if self.similar.len() > REMEMBERED {
            self.similar.clear();
        }
        if self.spoken.len() > REMEMBERED {
            self.spoken.clear();
        }
        let passed = self.combined(said, at);
        self.may_speak(&passed.said, at).then_some(passed)
    }

    fn combined(&mut self, said: Said, at: Timestamp) -> Passed {
        let kind = Said { field: None, message: String::new(), ..said.clone() };
        let fresh = || Similar { messages: BTreeSet::new(), last: at };
        let similar = self.similar.entry(kind.clone()).or_insert_with(fresh);
        if at.duration_since(similar.last) > INTERVAL {
            *similar = fresh();
        }
        similar.last = at;
        // What was told by itself goes on being counted by itself.
        if similar.messages.contains(&said.message) {
            return Passed { key: said.clone(), said };
        }
        if similar.messages.len() + 1 < SIMILAR {
            similar.messages.insert(said.message.clone());
            return Passed { key: said.clone(), said };
        }
        let message = format!("(combined from similar events): {}", said.message);
        Passed { said: Said { message, ..kind.clone() }, key: kind }
    }

    fn may_speak(&mut self, said: &Said, at: Timestamp) -> bool {
        let fresh = || Spoken { left: BURST, since: at };
        let spoken = self.spoken.entry(said.object.uid.clone()).or_insert_with(fresh);
        // A clock that was set back earns nothing, and loses nothing that was to come.
        spoken.since = spoken.since.min(at);
        let earned = at.duration_since(spoken.since).as_secs() / REFILL.as_secs();
        if let Some(earned) = u32::try_from(earned).ok().filter(|earned| *earned > 0) {
            spoken.left = spoken.left.saturating_add(earned).min(BURST);
            spoken.since = at;
        }
        let may = spoken.left > 0;
        spoken.left = spoken.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::events::{Kind, Object};

    fn said(uid: &str, message: &str) -> Said {
        Said {
            object: Object {
                kind: "Pod",
                namespace: "default".to_owned(),
                name: uid.to_owned(),
                uid: uid.to_owned(),
            },
            field: Some(message.to_owned()),
            kind: Kind::Normal,
            reason: "Pulled".into(),
            message: message.to_owned(),
            annotations: BTreeMap::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn from_the_tenth_message_on_like_events_are_one() {
        let mut correlator = Correlator::default();
        for number in 1..=9 {
            let passed = correlator.pass(said("a", &number.to_string()), at(number)).unwrap();
            assert_eq!(passed.said.message, number.to_string());
        }
        let tenth = correlator.pass(said("a", "x"), at(10)).unwrap();
        let next = correlator.pass(said("a", "x"), at(11)).unwrap();
        let other = correlator.pass(said("a", "y"), at(12)).unwrap();
        let known = correlator.pass(said("a", "3"), at(13)).unwrap();
        assert_eq!(known.said.message, "3");
        assert_eq!(tenth.said.message, "(combined from similar events): x");
        assert!(tenth == next && tenth.key == other.key && tenth.said != other.said);
        let later = correlator.pass(said("a", "x"), at(1000)).unwrap();
        assert_eq!(later.said.message, "x");
    }

    #[test]
    fn one_object_is_cut_and_the_others_are_heard() {
        let mut correlator = Correlator::default();
        let mut passed = 0;
        for _ in 0..100 {
            passed += usize::from(correlator.pass(said("a", "again"), at(0)).is_some());
        }
        assert_eq!(passed, 25);
        assert!(correlator.pass(said("b", "again"), at(0)).is_some());
        assert!(correlator.pass(said("a", "again"), at(299)).is_none());
        assert!(correlator.pass(said("a", "again"), at(300)).is_some());
        assert!(correlator.pass(said("a", "again"), at(301)).is_none());
        // The clock is set back.
        assert!(correlator.pass(said("a", "again"), at(100)).is_none());
        assert!(correlator.pass(said("a", "again"), at(400)).is_some());
    }
}
