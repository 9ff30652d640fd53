//! Certificates of pods, counted: name, labels and help of the kubelet (`pkg/kubelet/metrics/collectors/podcertificate_metrics.go`).

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Of all pods. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    states: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register(node: &Registry) -> prometheus::Result<Self> {
        let states = Opts::new(
            "kubelet_podcertificate_states",
            "[ALPHA] Gauge vector reporting the number of pod certificate projected volume sources, faceted by signer_name and state.",
        );
        let states = IntGaugeVec::new(states, &["signer_name", "state"])?;
        node.register(Box::new(states.clone()))?;
        Ok(Self { states })
    }

    /// Counts one, until what is given back is dropped.
    pub(super) fn count(&self, signer: &str, state: &str) -> Counted {
        let gauge = self.states.with_label_values(&[signer, state]);
        gauge.inc();
        Counted(gauge)
    }
}

/// A certificate that is counted.
#[derive(Debug)]
pub(super) struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
