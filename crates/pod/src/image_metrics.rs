//! What pods want of images, counted: names, labels and help of the kubelet (`pkg/kubelet/images/metrics.go` and
//! `pkg/kubelet/metrics/metrics.go`). What becomes of pulls the crate of images counts itself.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

const LABELS: [&str; 3] = ["pull_policy", "present_locally", "pull_required"];

/// Of all pods. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    pub(crate) volumes: Volumes,
}

/// Images that are volumes, by container that mounts one.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    requested: IntCounter,
    succeeded: IntCounter,
    failed: IntCounter,
}

impl Metrics {
    pub(crate) fn register(node: &Registry) -> prometheus::Result<Self> {
        let requests = Opts::new(
            "kubelet_image_manager_ensure_image_requests_total",
            "[ALPHA] Number of ensure-image requests processed by the kubelet.",
        );
        let requests = IntCounterVec::new(requests, &LABELS)?;
        node.register(Box::new(requests.clone()))?;
        Ok(Self { requests, volumes: Volumes::register(node)? })
    }

    /// A request for an image by this policy, which is counted when it is dropped.
    pub(crate) fn request(&self, policy: &str) -> Request<'_> {
        let policy = match policy {
            "Always" => "always",
            "Never" => "never",
            _ => "ifnotpresent",
        };
        Request { all: self, policy, is_here: None, is_pulled: None }
    }
}

impl Volumes {
    fn register(node: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| {
            let counter = IntCounter::new(name, help)?;
            node.register(Box::new(counter.clone())).map(|()| counter)
        };
        Ok(Self {
            requested: counter(
                "kubelet_image_volume_requested_total",
                "[BETA] Number of requested image volumes.",
            )?,
            succeeded: counter(
                "kubelet_image_volume_mounted_succeed_total",
                "[BETA] Number of successful image volume mounts.",
            )?,
            failed: counter(
                "kubelet_image_volume_mounted_errors_total",
                "[BETA] Number of failed image volume mounts.",
            )?,
        })
    }

    /// Counts so many mounts of a container that was started, or was to be.
    pub(crate) fn mounted(&self, mounts: usize, are_there: bool) {
        self.requested.inc_by(mounts as u64);
        let became = if are_there { &self.succeeded } else { &self.failed };
        became.inc_by(mounts as u64);
    }
}

/// A request for an image, as far as it is known what becomes of it.
pub(crate) struct Request<'m> {
    all: &'m Metrics,
    policy: &'static str,
    /// Whether the image is on the node; none where nobody has looked.
    pub(crate) is_here: Option<bool>,
    /// Whether the registry has to be asked; none before that is known.
    pub(crate) is_pulled: Option<bool>,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let word = |known| match known {
            None => "unknown",
            Some(true) => "true",
            Some(false) => "false",
        };
        let labels = [self.policy, word(self.is_here), word(self.is_pulled)];
        self.all.requests.with_label_values(&labels).inc();
    }
}
