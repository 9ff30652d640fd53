//! Certificates of pods (KEP-4317): the key is made on this node and never leaves it but to the pod's volume; the API server is
//! given a PodCertificateRequest, which a signer of the cluster answers; before the certificate is old, all begins anew.
//!
//! Keys are in this process's memory and the pod's volume alone. The next agent makes new ones, as the kubelet does: what runs
//! goes on with the files that it has until they are there. Read `held.rs` (what is decided), `verdict.rs` (of what),
//! `request.rs` (what is asked), `key.rs`, `chain.rs`.

mod chain;
mod held;
mod key;
mod metrics;
mod request;
mod verdict;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCertificateProjection};

use held::Held;
pub(super) use held::Lack;
use metrics::Counted;
pub(crate) use metrics::Metrics;
pub(super) use request::{Answer, Asked, answer};
pub(super) use verdict::{Issued, Note};

use super::Answered;
use crate::host::Host;

/// Where in a pod a certificate is wanted: the volume, and the index among its sources. Each has a key of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) volume: String,
    pub(super) index: usize,
}

/// A pod's certificates.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    all: BTreeMap<Spot, Held>,
    /// How they are counted.
    counted: Vec<Counted>,
}

/// What a look at all of them came to.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// When there is something to do; an answer may come before.
    pub(super) due: Option<Timestamp>,
    /// What the pod's Events say.
    pub(super) notes: Vec<Note>,
    /// Requests that were made: their answers are to be waited for.
    pub(super) asked: Vec<(Spot, Asked)>,
}

impl Certificates {
    /// Takes in what was answered and asks for those that are missing or old.
    pub(super) async fn renew(
        &mut self,
        host: &Host,
        pod: &Pod,
        answered: Vec<Answered>,
        now: Timestamp,
    ) -> Look {
        let wanted = wanted(pod);
        self.all.retain(|spot, _| wanted.contains_key(spot));
        let mut look = Look::default();
        for Answered { spot, answer } in answered {
            if let Some(held) = self.all.get_mut(&spot) {
                look.notes.extend(held.take(answer, now, jitter));
            }
        }
        for (spot, source) in &wanted {
            let held = self.all.entry(spot.clone()).or_default();
            look.notes.extend(held.age(now));
            if held.is_due(now) {
                let asked = request::ask(host, pod, source).await;
                look.asked.extend(held.asked(asked, now).map(|asked| (spot.clone(), asked)));
            }
        }
        self.count(host, &wanted, now);
        look.due = self.all.values().filter_map(Held::due).min();
        look
    }

    fn count(&mut self, host: &Host, wanted: &Wanted<'_>, now: Timestamp) {
        let metrics = &host.metrics.certificates;
        let both = wanted.iter().filter_map(|(spot, source)| Some((source, self.all.get(spot)?)));
        self.counted = both
            .map(|(source, held)| metrics.count(&source.signer_name, held.state(now)))
            .collect();
    }

    /// The clock was set.
    pub(super) fn move_by(&mut self, by: SignedDuration) {
        self.all.values_mut().for_each(|held| held.move_by(by));
    }

    /// What the pod has at this place; or why there is nothing.
    pub(super) fn find(&self, spot: &Spot) -> Result<&Issued, Lack> {
        self.all.get(spot).map_or(Err(Lack::none()), Held::find)
    }

    /// Whether a volume waits for a signer that may take another moment.
    pub(super) fn waits(&self, volume: &str, now: Timestamp) -> bool {
        let of_volume = self.all.iter().filter(|(spot, _)| spot.volume == volume);
        let lacks: Vec<Lack> = of_volume.filter_map(|(_, held)| held.find().err()).collect();
        !lacks.is_empty() && lacks.iter().all(|lack| lack.is_young(now))
    }

    #[cfg(test)]
    pub(super) fn with(spot: Spot, key: &str, chain: &str) -> Self {
        Self { all: BTreeMap::from([(spot, Held::with(key, chain))]), counted: Vec::new() }
    }
}

fn jitter(longest: SignedDuration) -> SignedDuration {
    let longest = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX).max(1);
    SignedDuration::from_millis(rand::random_range(0..longest))
}

type Wanted<'p> = BTreeMap<Spot, &'p PodCertificateProjection>;

fn wanted(pod: &Pod) -> Wanted<'_> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
        sources.enumerate().map(|(index, source)| (&volume.name, index, source))
    });
    let wanted = sources.filter_map(|(volume, index, source)| {
        let source = source.pod_certificate.as_ref()?;
        Some((Spot { volume: volume.clone(), index }, source))
    });
    wanted.collect()
}
