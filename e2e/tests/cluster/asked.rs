//! What was asked of a proxy, and which of it is to fail.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;
use tokio::time::Instant;

/// What becomes of a request instead of what should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused with this code; the API server hears nothing of it.
    Code(u16),
    /// The API server does it, and the connection breaks off in its answer.
    Lost,
}

/// A request, as it came by.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Verb and resource as the API server's authorizer has them: `patch pods/status`. A streaming list (KEP-3157) is a `list`.
    pub(crate) what: String,
    /// Of the object; empty where it is about many, or a new one.
    pub(crate) name: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
    /// When it was answered, and with which code; none for an answer that was lost.
    pub(crate) answered: Option<(Instant, u16)>,
}

/// Requests of this kind, about the object of this name or about any where it is empty, meet these faults.
struct Rule {
    what: String,
    name: String,
    faults: VecDeque<Fault>,
}

/// The first request of each kind meets this fault.
struct Each {
    fault: Fault,
    /// The kinds that have.
    met: BTreeSet<String>,
}

impl Each {
    fn meets(&mut self, what: &str) -> Option<Fault> {
        self.met.insert(what.to_owned()).then_some(self.fault)
    }
}

/// All of it.
#[derive(Default)]
pub(crate) struct Store {
    asked: Vec<Asked>,
    rules: Vec<Rule>,
    each: Option<Each>,
}

impl Store {
    /// The next requests of this kind meet these faults.
    pub(crate) fn fail(&mut self, what: &str, name: &str, faults: VecDeque<Fault>) {
        self.rules.push(Rule { what: what.to_owned(), name: name.to_owned(), faults });
    }

    /// The next request of each kind meets this fault.
    pub(crate) fn fail_each(&mut self, fault: Fault) {
        self.each = Some(Each { fault, met: BTreeSet::new() });
    }

    /// Nothing fails any more.
    pub(crate) fn mend(&mut self) {
        self.rules.clear();
        self.each = None;
    }

    /// The kinds of request of which one has met the fault for each.
    pub(crate) fn kinds_met(&self) -> BTreeSet<String> {
        self.each.as_ref().map(|each| each.met.clone()).unwrap_or_default()
    }

    /// Whether every fault that was foretold has been met.
    pub(crate) fn is_met(&self) -> bool {
        self.rules.iter().all(|rule| rule.faults.is_empty())
    }

    /// Notes a request: its place among all, and its fault.
    pub(crate) fn note(&mut self, asked: Asked) -> (usize, Option<Fault>) {
        let meant = |rule: &&mut Rule| {
            rule.what == asked.what
                && (rule.name.is_empty() || rule.name == asked.name)
                && !rule.faults.is_empty()
        };
        let fault = self.rules.iter_mut().find(meant).and_then(|rule| rule.faults.pop_front());
        let fault = fault.or_else(|| self.each.as_mut()?.meets(&asked.what));
        self.asked.push(asked);
        (self.asked.len() - 1, fault)
    }

    /// Notes that the request at this place is answered, with this code.
    pub(crate) fn answered(&mut self, place: usize, code: u16) {
        if let Some(asked) = self.asked.get_mut(place) {
            asked.answered = Some((Instant::now(), code));
        }
    }

    /// The requests, in the order of their coming.
    pub(crate) fn all(&self) -> &[Asked] {
        &self.asked
    }
}
