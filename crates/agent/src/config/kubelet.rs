use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use super::{shutdown::ByPriority, values::GoDuration};

/// The part of a KubeletConfiguration (kubelet.config.k8s.io/v1beta1) that means something here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Kubelet {
    pub(crate) address: Option<IpAddr>,
    pub(crate) authentication: Authentication,
    pub(crate) authorization: Authorization,
    pub(crate) cgroup_root: Option<PathBuf>,
    #[serde(rename = "cgroupsPerQOS")]
    pub(crate) cgroups_per_qos: Option<bool>,
    #[serde(rename = "clusterDNS")]
    pub(crate) cluster_dns: Vec<IpAddr>,
    pub(crate) cluster_domain: String,
    pub(crate) container_log_max_files: Option<u32>,
    pub(crate) container_log_max_size: Option<String>,
    pub(crate) crash_loop_back_off: CrashLoopBackOff,
    pub(crate) event_burst: Option<u32>,
    #[serde(rename = "eventRecordQPS")]
    pub(crate) event_record_qps: Option<u32>,
    pub(crate) eviction_hard: Option<BTreeMap<String, String>>,
    pub(crate) eviction_max_pod_grace_period: Option<i32>,
    pub(crate) eviction_minimum_reclaim: BTreeMap<String, String>,
    pub(crate) eviction_pressure_transition_period: GoDuration,
    pub(crate) eviction_soft: BTreeMap<String, String>,
    pub(crate) eviction_soft_grace_period: BTreeMap<String, GoDuration>,
    pub(crate) file_check_frequency: GoDuration,
    pub(crate) healthz_bind_address: Option<IpAddr>,
    pub(crate) healthz_port: Option<u16>,
    pub(crate) http_check_frequency: GoDuration,
    #[serde(rename = "kubeAPIBurst")]
    pub(crate) kube_api_burst: Option<u32>,
    #[serde(rename = "kubeAPIQPS")]
    pub(crate) kube_api_qps: Option<i32>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub(crate) image_gc_high: Option<u8>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub(crate) image_gc_low: Option<u8>,
    #[serde(rename = "imageMaximumGCAge")]
    pub(crate) image_gc_oldest: GoDuration,
    #[serde(rename = "imageMinimumGCAge")]
    pub(crate) image_gc_youngest: GoDuration,
    pub(crate) image_pull_credentials_verification_policy: Option<Verification>,
    pub(crate) kube_reserved: BTreeMap<String, String>,
    pub(crate) logging: Logging,
    pub(crate) max_parallel_image_pulls: Option<usize>,
    pub(crate) max_pods: Option<u32>,
    pub(crate) node_lease_duration_seconds: Option<u32>,
    pub(crate) node_status_report_frequency: GoDuration,
    pub(crate) node_status_update_frequency: GoDuration,
    pub(crate) pod_logs_dir: Option<PathBuf>,
    pub(crate) pod_pids_limit: Option<i64>,
    pub(crate) port: Option<u16>,
    pub(crate) preloaded_images_verification_allowlist: Vec<String>,
    #[serde(rename = "providerID")]
    pub(crate) provider_id: Option<String>,
    pub(crate) register_node: Option<bool>,
    pub(crate) register_with_taints: Option<Vec<Taint>>,
    pub(crate) registry_burst: Option<u32>,
    #[serde(rename = "registryPullQPS")]
    pub(crate) registry_pull_qps: Option<u32>,
    /// An empty path is said too: no names.
    pub(crate) resolv_conf: Option<PathBuf>,
    pub(crate) serialize_image_pulls: Option<bool>,
    pub(crate) shutdown_grace_period: GoDuration,
    pub(crate) shutdown_grace_period_by_pod_priority: Vec<ByPriority>,
    pub(crate) shutdown_grace_period_critical_pods: GoDuration,
    pub(crate) static_pod_path: Option<PathBuf>,
    #[serde(rename = "staticPodURL")]
    pub(crate) static_pod_url: String,
    #[serde(rename = "staticPodURLHeader")]
    pub(crate) static_pod_url_header: BTreeMap<String, Vec<String>>,
    pub(crate) sync_frequency: GoDuration,
    pub(crate) system_reserved: BTreeMap<String, String>,
    pub(crate) tls_cert_file: Option<PathBuf>,
    pub(crate) tls_private_key_file: Option<PathBuf>,
}

/// Which images need a proof of access once they are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Verification {
    NeverVerify,
    NeverVerifyPreloadedImages,
    NeverVerifyAllowlistedImages,
    AlwaysVerify,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Authentication {
    pub(crate) anonymous: Switch,
    pub(crate) webhook: Switch,
    pub(crate) x509: X509,
}

/// `enabled`, if it is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Switch {
    pub(crate) enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct X509 {
    #[serde(rename = "clientCAFile")]
    pub(crate) client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Authorization {
    pub(crate) mode: Option<Mode>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum Mode {
    AlwaysAllow,
    Webhook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CrashLoopBackOff {
    pub(crate) max_container_restart_period: GoDuration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Logging {
    pub(crate) format: Option<Format>,
    pub(crate) verbosity: Option<u8>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[serde(alias = "")]
    Text,
    Json,
}
