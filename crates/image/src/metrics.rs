//! What is counted of images, under the kubelet's names where it counts the same: names, labels, buckets and help of
//! `pkg/kubelet/metrics/metrics.go`, `pkg/kubelet/images/pullmanager/metrics.go` and `pkg/credentialprovider/plugin/metrics.go`.
//!
//! No label is taken from what a pod or a registry says: there is a bounded number of series, whatever is pulled.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};
use tokio::time::Instant;

use crate::store::Store;

/// The kubelet's `imagePullDurationBuckets`, in seconds.
const PULL: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The kubelet's `imageSizeBuckets`: what an image is called that has more bytes.
const SIZES: [(u64, &str); 12] = [
    (100 * GIB, "GT100GB"),
    (60 * GIB, "60GB-100GB"),
    (40 * GIB, "40GB-60GB"),
    (30 * GIB, "30GB-40GB"),
    (20 * GIB, "20GB-30GB"),
    (10 * GIB, "10GB-20GB"),
    (5 * GIB, "5GB-10GB"),
    (GIB, "1GB-5GB"),
    (500 * MIB, "500MB-1GB"),
    (100 * MIB, "100MB-500MB"),
    (10 * MIB, "10MB-100MB"),
    (0, "0-10MB"),
];

/// What is counted of the images of a node. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) pulls: HistogramVec,
    pub(crate) checks: IntCounterVec,
    pub(crate) providers: Providers,
    pub(crate) collected: IntCounterVec,
    pub(crate) downloaded: IntCounter,
    pub(crate) in_progress: IntGauge,
    pub(crate) code: IntCounterVec,
    operations: Operations,
    intents: IntGauge,
    records: IntGauge,
}

/// What is counted of credential providers.
#[derive(Debug, Clone)]
pub(crate) struct Providers {
    pub(crate) durations: HistogramVec,
    pub(crate) errors: IntCounterVec,
    pub(crate) info: IntGaugeVec,
}

/// What is counted of the operations of the kubelet's runtime that are this crate's.
#[derive(Debug, Clone)]
struct Operations {
    total: IntCounterVec,
    durations: HistogramVec,
    errors: IntCounterVec,
}

impl Metrics {
    /// Has all of it shown by `node`, which is what `/metrics` serves.
    ///
    /// # Errors
    /// When the registry has something of one of the names.
    pub fn register(node: &Registry) -> prometheus::Result<Self> {
        let pulls = HistogramOpts::new(
            "kubelet_image_pull_duration_seconds",
            "[ALPHA] Duration in seconds to pull an image.",
        );
        Ok(Self {
            operations: Operations::register(node)?,
            providers: Providers::register(node)?,
            pulls: histograms(node, pulls.buckets(PULL.to_vec()), "image_size_in_bytes")?,
            checks: counters(
                node,
                "kubelet_imagemanager_image_mustpull_checks_total",
                "[ALPHA] Counter for how many times kubelet checked whether credentials need to be re-verified to access an image",
                "result",
            )?,
            intents: gauge(
                node,
                "kubelet_imagemanager_ondisk_pullintents",
                "[ALPHA] Number of ImagePullIntents stored on disk.",
            )?,
            records: gauge(
                node,
                "kubelet_imagemanager_ondisk_pulledrecords",
                "[ALPHA] Number of ImagePulledRecords stored on disk.",
            )?,
            collected: counters(
                node,
                "kubelet_image_garbage_collected_total",
                "[ALPHA] Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
                "reason",
            )?,
            downloaded: shown(
                node,
                IntCounter::new(
                    "nodule_image_downloaded_bytes_total",
                    "Bytes of images that registries have sent, those of downloads that failed too.",
                )?,
            )?,
            in_progress: gauge(
                node,
                "nodule_image_pulls_in_progress",
                "Pulls of images that are under way, those that wait for others too.",
            )?,
            code: counters(
                node,
                "nodule_compiled_code_requests_total",
                "How often compiled code was asked for that was there (hit) or had to be made (miss).",
                "result",
            )?,
        })
    }

    /// Counts an operation of the runtime when it ends, or is dropped.
    pub(crate) fn operation(&self, kind: &'static str) -> Operation<'_> {
        Operation { all: &self.operations, kind, since: Instant::now() }
    }

    /// Counts what proved access: an intent is one whose image is not here, or not yet. Blocks.
    pub(crate) fn count_proofs(&self, store: &Store) {
        let (intents, records) = store.count_proofs();
        self.intents.set(intents);
        self.records.set(records);
    }
}

impl Providers {
    fn register(node: &Registry) -> prometheus::Result<Self> {
        // The default buckets are the kubelet's: both are those of Prometheus' own libraries.
        let durations = HistogramOpts::new(
            "kubelet_credential_provider_plugin_duration",
            "[ALPHA] Duration of execution in seconds for credential provider plugin",
        );
        let info = Opts::new(
            "kubelet_credential_provider_config_info",
            "[ALPHA] Information about the last applied credential provider configuration with hash as label",
        );
        Ok(Self {
            durations: histograms(node, durations, "plugin_name")?,
            errors: counters(
                node,
                "kubelet_credential_provider_plugin_errors_total",
                "[ALPHA] Number of errors from credential provider plugin",
                "plugin_name",
            )?,
            info: shown(node, IntGaugeVec::new(info, &["hash"])?)?,
        })
    }
}

impl Operations {
    fn register(node: &Registry) -> prometheus::Result<Self> {
        let durations = HistogramOpts::new(
            "kubelet_runtime_operations_duration_seconds",
            "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
        );
        let durations = durations.buckets(exponential_buckets(0.005, 2.5, 14)?);
        Ok(Self {
            total: counters(
                node,
                "kubelet_runtime_operations_total",
                "[ALPHA] Cumulative number of runtime operations by operation type.",
                "operation_type",
            )?,
            durations: histograms(node, durations, "operation_type")?,
            errors: counters(
                node,
                "kubelet_runtime_operations_errors_total",
                "[ALPHA] Cumulative number of runtime operation errors by operation type.",
                "operation_type",
            )?,
        })
    }
}

fn shown<C: Collector + Clone + 'static>(node: &Registry, one: C) -> prometheus::Result<C> {
    node.register(Box::new(one.clone())).map(|()| one)
}

fn counters(
    node: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> prometheus::Result<IntCounterVec> {
    shown(node, IntCounterVec::new(Opts::new(name, help), &[label])?)
}

fn gauge(node: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    shown(node, IntGauge::new(name, help)?)
}

fn histograms(
    node: &Registry,
    opts: HistogramOpts,
    label: &str,
) -> prometheus::Result<HistogramVec> {
    shown(node, HistogramVec::new(opts, &[label])?)
}

/// How the kubelet calls an image of so many bytes.
pub(crate) fn size_class(bytes: u64) -> &'static str {
    SIZES.iter().find(|(more_than, _)| bytes > *more_than).map_or("N/A", |(_, name)| name)
}

/// An operation of the runtime that is under way.
pub(crate) struct Operation<'m> {
    all: &'m Operations,
    kind: &'static str,
    since: Instant,
}

impl Operation<'_> {
    /// Ends it as it turned out.
    pub(crate) fn end<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        result.inspect_err(|_| self.all.errors.with_label_values(&[self.kind]).inc())
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        self.all.total.with_label_values(&[self.kind]).inc();
        self.all.durations.with_label_values(&[self.kind]).observe(took);
    }
}

/// Something that is under way until this is dropped.
pub(crate) struct Current(IntGauge);

impl Current {
    pub(crate) fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_size_is_told_in_the_kubelets_classes() {
        for (bytes, class) in [
            (0, "N/A"),
            (1, "0-10MB"),
            (10 * MIB, "0-10MB"),
            (10 * MIB + 1, "10MB-100MB"),
            (GIB, "500MB-1GB"),
            (GIB + 1, "1GB-5GB"),
            (u64::MAX, "GT100GB"),
        ] {
            assert_eq!(size_class(bytes), class, "{bytes}");
        }
    }
}
