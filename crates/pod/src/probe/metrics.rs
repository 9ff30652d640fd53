//! How often and for how long containers are probed: names, labels and help of the kubelet (`pkg/kubelet/prober/
//! prober_manager.go` and `worker.go`).

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::Kind;

const DURATION: [&str; 4] = ["probe_type", "container", "pod", "namespace"];
const RESULT: [&str; 6] = ["probe_type", "result", "container", "pod", "namespace", "pod_uid"];
const SUCCESSFUL: &str = "successful";
const FAILED: &str = "failed";

/// Of all pods. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    results: IntCounterVec,
    durations: HistogramVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let results = Opts::new(
            "prober_probe_total",
            "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
        );
        // The default buckets are the kubelet's: both are those of Prometheus' own libraries.
        let durations = HistogramOpts::new(
            "prober_probe_duration_seconds",
            "[ALPHA] Duration in seconds for a probe response.",
        );
        let metrics = Self {
            results: IntCounterVec::new(results, &RESULT)?,
            durations: HistogramVec::new(durations, &DURATION)?,
        };
        registry.register(Box::new(metrics.results.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        Ok(metrics)
    }

    /// Of one container and one kind of probe.
    pub(crate) fn series(&self, pod: &Pod, container: &str, kind: Kind) -> Series {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &pod.metadata;
        Series {
            all: self.clone(),
            kind,
            container: container.to_owned(),
            pod: part(&meta.name),
            namespace: part(&meta.namespace),
            uid: part(&meta.uid),
        }
    }
}

/// What is counted of one kind of probe of one container. It is shown no more when this is dropped.
#[derive(Debug)]
pub(crate) struct Series {
    all: Metrics,
    kind: Kind,
    container: String,
    pod: String,
    namespace: String,
    uid: String,
}

impl Series {
    pub(crate) fn succeeded(&self, took: Duration) {
        self.all.results.with_label_values(&self.result(SUCCESSFUL)).inc();
        let durations = &self.all.durations;
        durations.with_label_values(&self.duration()).observe(took.as_secs_f64());
    }

    /// How long a failure took is not told by the kubelet either.
    pub(crate) fn failed(&self) {
        self.all.results.with_label_values(&self.result(FAILED)).inc();
    }

    fn result<'a>(&'a self, result: &'a str) -> [&'a str; 6] {
        let [kind, container, pod, namespace] = self.duration();
        [kind, result, container, pod, namespace, &self.uid]
    }

    fn duration(&self) -> [&str; 4] {
        [self.kind.title(), &self.container, &self.pod, &self.namespace]
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        // What was never counted is not there.
        for result in [SUCCESSFUL, FAILED] {
            let _ = self.all.results.remove_label_values(&self.result(result));
        }
        let _ = self.all.durations.remove_label_values(&self.duration());
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn probes_are_shown_in_the_kubelets_words_for_as_long_as_somebody_asks() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let shown = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(shown(), "");
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let series = metrics.series(&pod, "c", Kind::Liveness);
        series.succeeded(Duration::from_millis(30));
        series.failed();
        series.failed();
        let labels = r#"container="c",namespace="n",pod="p""#;
        let bucket = |le: &str, count| {
            format!(
                "prober_probe_duration_seconds_bucket{{{labels},probe_type=\"Liveness\",le=\"{le}\"}} {count}\n"
            )
        };
        let mut wanted = String::from(
            "# HELP prober_probe_duration_seconds [ALPHA] Duration in seconds for a probe response.\n\
             # TYPE prober_probe_duration_seconds histogram\n",
        );
        wanted.extend(["0.005", "0.01", "0.025"].map(|le| bucket(le, 0)));
        let rest = ["0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
        wanted.extend(rest.map(|le| bucket(le, 1)));
        wanted += &format!(
            "prober_probe_duration_seconds_sum{{{labels},probe_type=\"Liveness\"}} 0.03\n\
             prober_probe_duration_seconds_count{{{labels},probe_type=\"Liveness\"}} 1\n\
             # HELP prober_probe_total [BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.\n\
             # TYPE prober_probe_total counter\n\
             prober_probe_total{{{labels},pod_uid=\"u\",probe_type=\"Liveness\",result=\"failed\"}} 2\n\
             prober_probe_total{{{labels},pod_uid=\"u\",probe_type=\"Liveness\",result=\"successful\"}} 1\n"
        );
        assert_eq!(shown(), wanted);
        let other = metrics.series(&pod, "d", Kind::Readiness);
        other.failed();
        drop(series);
        let left = shown();
        assert!(!left.contains("Liveness") && left.contains("Readiness"), "{left}");
        drop(other);
        assert_eq!(shown(), "");
    }
}
