//! What is counted of pods, under the kubelet's names.

use prometheus::Registry;

use crate::probe;

/// What is counted of pods. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) probes: probe::Metrics,
}

impl Metrics {
    /// Has all of it shown by `probes`, which is what `/metrics/probes` serves.
    ///
    /// # Errors
    /// When the registry has something of one of the names.
    pub fn register(probes: &Registry) -> prometheus::Result<Self> {
        Ok(Self { probes: probe::Metrics::register(probes)? })
    }
}
