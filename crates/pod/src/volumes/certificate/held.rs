//! How far one certificate is: pure (the kubelet's `podcertificatemanager.go`, whose words the messages are).

use jiff::{SignedDuration, Timestamp};

use super::request::{Answer, Asked};
use super::verdict::{Issued, Note, Refusal, Verdict};
use crate::clock::moved;

/// After a renewal that could not be asked for.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// So long a signer may think before the pod's Events tell that it is waited for.
const YOUNG: SignedDuration = SignedDuration::from_secs(10);

/// What is done about the next one.
#[derive(Debug, Default)]
enum Next {
    /// Nothing yet.
    #[default]
    Idle,
    /// It could not be asked for, and will be again.
    Unasked { why: String, again: Timestamp },
    /// The signer has to answer.
    Asked { asked: Asked, since: Timestamp },
    /// The signer has refused.
    Refused(Refusal),
}

/// A certificate of a pod.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What the pod has. Nothing takes it away but its successor.
    has: Option<Issued>,
    next: Next,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Lack {
    /// In the kubelet's words.
    pub(in super::super) why: String,
    /// Since then a signer is waited for, if that is why.
    since: Option<Timestamp>,
}

impl Lack {
    pub(super) fn none() -> Self {
        Self { why: "credential bundle is not issued yet".to_owned(), since: None }
    }

    /// A signer may take a moment before that is told as a failure.
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) < YOUNG)
    }
}

impl Held {
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let old = |from: &Timestamp| self.has.is_none() || *from <= now;
        match &self.next {
            Next::Idle => self.has.as_ref().is_none_or(|has| has.refresh <= now),
            Next::Unasked { again, .. } => old(again),
            Next::Asked { .. } | Next::Refused(_) => false,
        }
    }

    /// When there is something to do or to tell. Who has nothing yet is looked at again because its volume is missing.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let has = self.has.as_ref()?;
        let ask = match &self.next {
            Next::Idle => Some(has.refresh),
            Next::Unasked { again, .. } => Some(*again),
            Next::Asked { .. } | Next::Refused(_) => None,
        };
        [ask, has.told_at()].into_iter().flatten().min()
    }

    /// Takes in whether it could be asked for. Gives back what is to be waited for.
    pub(super) fn asked(&mut self, asked: Result<Asked, String>, now: Timestamp) -> Option<Asked> {
        match asked {
            Ok(asked) => {
                self.next = Next::Asked { asked: asked.clone(), since: now };
                Some(asked)
            }
            Err(why) => {
                self.next = Next::Unasked { why, again: moved(now, AGAIN) };
                None
            }
        }
    }

    /// Takes in what became of the request.
    pub(super) fn take(
        &mut self,
        answer: Answer,
        now: Timestamp,
        jitter: impl Fn(SignedDuration) -> SignedDuration,
    ) -> Option<Note> {
        let Next::Asked { asked, .. } = std::mem::take(&mut self.next) else { return None };
        // One that was removed without an answer, as old ones are, is made anew.
        let Answer::Ended(status) = answer else { return None };
        match Verdict::of(&status, &asked, now) {
            Verdict::Issued(mut issued) => {
                issued.put_off(jitter);
                self.has = Some(issued);
                None
            }
            Verdict::Refused(refusal) => {
                let note = refusal.note(&asked.name);
                self.next = Next::Refused(refusal);
                Some(note)
            }
        }
    }

    /// What there is to tell of the age of what the pod has, once.
    pub(super) fn age(&mut self, now: Timestamp) -> Vec<Note> {
        self.has.as_mut().map(|has| has.age(now)).unwrap_or_default()
    }

    /// The clock was set.
    pub(super) fn move_by(&mut self, by: SignedDuration) {
        if let Some(has) = &mut self.has {
            has.move_by(by);
        }
        match &mut self.next {
            Next::Unasked { again: time, .. } | Next::Asked { since: time, .. } => {
                *time = moved(*time, by);
            }
            Next::Idle | Next::Refused(_) => {}
        }
    }

    /// In the words of the kubelet's metric.
    pub(super) fn state(&self, now: Timestamp) -> &'static str {
        match (&self.next, &self.has) {
            (Next::Refused(refusal), _) => refusal.state(),
            (_, None) => "not_yet_issued",
            (_, Some(has)) if now >= has.expires => "expired",
            (_, Some(has)) if now >= has.overdue() => "overdue_for_refresh",
            (_, Some(_)) => "fresh",
        }
    }

    pub(super) fn find(&self) -> Result<&Issued, Lack> {
        self.has.as_ref().ok_or_else(|| self.lack())
    }

    fn lack(&self) -> Lack {
        match &self.next {
            Next::Idle => Lack::none(),
            Next::Unasked { why, .. } => Lack { why: why.clone(), since: None },
            Next::Refused(refusal) => Lack { why: refusal.why(), since: None },
            Next::Asked { asked, since } => Lack {
                why: format!(
                    "credential bundle is not issued yet: signer {:?} has not answered PodCertificateRequest {}",
                    asked.signer, asked.name
                ),
                since: Some(*since),
            },
        }
    }

    #[cfg(test)]
    pub(super) fn with(key: &str, chain: &str) -> Self {
        let (key, chain) = (key.to_owned(), chain.to_owned());
        let has = Issued::new(key, chain, Timestamp::MAX, Timestamp::MAX);
        Self { has: Some(has), next: Next::Idle }
    }
}

#[cfg(test)]
mod tests;
