//! What is counted of pods, under the kubelet's names.

use prometheus::Registry;

use crate::{image_metrics, probe, volumes};

/// What is counted of pods. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) certificates: volumes::CertificateMetrics,
    pub(crate) images: image_metrics::Metrics,
    pub(crate) probes: probe::Metrics,
}

impl Metrics {
    /// Has it shown by `node`, which is what `/metrics` serves, and by `probes`, which is what `/metrics/probes` serves.
    ///
    /// # Errors
    /// When a registry has something of one of the names.
    pub fn register(node: &Registry, probes: &Registry) -> prometheus::Result<Self> {
        let images = image_metrics::Metrics::register(node)?;
        let certificates = volumes::CertificateMetrics::register(node)?;
        Ok(Self { certificates, images, probes: probe::Metrics::register(probes)? })
    }
}
