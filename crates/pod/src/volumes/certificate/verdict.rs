//! What a signer says of a request: pure (the kubelet's `podcertificatemanager.go`, whose words the messages are).

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequestStatus;

use super::chain;
use super::request::{Asked, Name};
use crate::clock::moved;

/// Up to so much later than the signer says a certificate is asked for anew, so that not all pods ask at once (the kubelet's
/// `jitterDuration`).
const JITTER: SignedDuration = SignedDuration::from_mins(5);
/// So long after that moment its renewal is overdue (the kubelet's `refreshOverdueDuration`).
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

/// Types of a request's conditions (`certificates.k8s.io/v1`, `PodCertificateRequestStatus`).
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const REFUSALS: [&str; 2] = [DENIED, FAILED];

/// An Event: its reason and its message.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Note {
    pub(in super::super) reason: &'static str,
    pub(in super::super) message: String,
}

/// A key and its certificate.
pub(in super::super) struct Issued {
    /// PEM, PKCS#8.
    pub(in super::super) key: String,
    /// PEM, the pod's own certificate first.
    pub(in super::super) chain: String,
    /// When the next is asked for.
    pub(super) refresh: Timestamp,
    pub(super) expires: Timestamp,
    /// What was told of its age.
    overdue_told: bool,
    expired_told: bool,
}

/// Says nothing of the key: it would be in a log.
impl fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Issued {
    pub(super) fn new(key: String, chain: String, refresh: Timestamp, expires: Timestamp) -> Self {
        Self { key, chain, refresh, expires, overdue_told: false, expired_told: false }
    }

    /// Has it asked for anew a little later, up to the time that `jitter` is given.
    pub(super) fn put_off(&mut self, jitter: impl Fn(SignedDuration) -> SignedDuration) {
        let longest = (self.expires.duration_since(self.refresh) / 4).min(JITTER);
        self.refresh = moved(self.refresh, jitter(longest));
    }

    /// When its renewal is overdue.
    pub(super) fn overdue(&self) -> Timestamp {
        moved(self.refresh, OVERDUE)
    }

    /// What there is to tell of its age, once.
    pub(super) fn age(&mut self, now: Timestamp) -> Vec<Note> {
        let mut notes = Vec::new();
        if now >= self.overdue() && !std::mem::replace(&mut self.overdue_told, true) {
            let message = "PodCertificate refresh overdue".to_owned();
            notes.push(Note { reason: "CertificateOverdueForRefresh", message });
        }
        if now >= self.expires && !std::mem::replace(&mut self.expired_told, true) {
            let message = "PodCertificate expired".to_owned();
            notes.push(Note { reason: "CertificateExpired", message });
        }
        notes
    }

    /// When there is something to tell of its age.
    pub(super) fn told_at(&self) -> Option<Timestamp> {
        let overdue = (!self.overdue_told).then(|| self.overdue());
        let expired = (!self.expired_told).then_some(self.expires);
        [overdue, expired].into_iter().flatten().min()
    }

    /// The clock was set.
    pub(super) fn move_by(&mut self, by: SignedDuration) {
        (self.refresh, self.expires) = (moved(self.refresh, by), moved(self.expires, by));
    }
}

/// What a signer says.
#[derive(Debug)]
pub(super) enum Verdict {
    Issued(Issued),
    Refused(Refusal),
}

/// That there will be no certificate. It holds for ever (KEP-4317): whoever wants another answer makes another pod.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Whether the signer did not want to; else it could not.
    denied: bool,
    reason: String,
    message: String,
}

impl Verdict {
    pub(super) fn of(status: &PodCertificateRequestStatus, asked: &Asked, now: Timestamp) -> Self {
        let mut conditions = status.conditions.iter().flatten();
        let refusal = conditions.find(|condition| REFUSALS.contains(&condition.type_.as_str()));
        if let Some(condition) = refusal {
            let denied = condition.type_ == DENIED;
            let (reason, message) = (condition.reason.clone(), condition.message.clone());
            return Self::Refused(Refusal { denied, reason, message });
        }
        issued(status, asked, now)
            .map_or_else(|why| Self::Refused(Refusal::of_chain(&why)), Self::Issued)
    }
}

impl Refusal {
    fn of_chain(why: &str) -> Self {
        let reason = "InvalidCertificateChain".to_owned();
        Self { denied: false, reason, message: format!("the certificate chain {why}") }
    }

    /// In the words of the kubelet's metric.
    pub(super) const fn state(&self) -> &'static str {
        if self.denied { "denied" } else { "failed" }
    }

    /// Why the volume is not there.
    pub(super) fn why(&self) -> String {
        let Self { reason, message, .. } = self;
        let end = self.state();
        format!(
            "PodCertificateRequest was permanently {end}: reason={reason:?} message={message:?}"
        )
    }

    pub(super) fn note(&self, name: &Name) -> Note {
        let Self { reason, message, .. } = self;
        let (kind, end) = if self.denied { (DENIED, "was denied") } else { (FAILED, "failed") };
        let message =
            format!("PodCertificateRequest {name} {end}, reason={reason:?}, message={message:?}");
        Note { reason: kind, message }
    }
}

/// Whether a request with a condition of this type has its answer.
pub(super) fn is_end(kind: &str) -> bool {
    kind == "Issued" || REFUSALS.contains(&kind)
}

fn issued(
    status: &PodCertificateRequestStatus,
    asked: &Asked,
    now: Timestamp,
) -> Result<Issued, String> {
    let text = status.certificate_chain.as_deref().unwrap_or_default();
    let chain = chain::clean(text, &asked.key.public)?;
    let begins = status.not_before.as_ref().map_or(now, |time| time.0);
    let expires = status.not_after.as_ref().map_or(now, |time| time.0);
    let refresh = status.begin_refresh_at.as_ref().map_or(expires, |time| time.0);
    // One that does not hold yet, or no more, was given by another clock: what it lives is counted from now.
    let is_ours = (begins..=expires).contains(&now);
    let by = if is_ours { SignedDuration::ZERO } else { now.duration_since(begins) };
    Ok(Issued::new(asked.key.pem.clone(), chain, moved(refresh, by), moved(expires, by)))
}
