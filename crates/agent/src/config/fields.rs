//! Which fields of a configuration are known, and which of them mean something here.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Fields that mean something, by path. Those of a map are its own affair.
pub(crate) const KUBELET: &[&str] = &[
    "address",
    "authentication.anonymous.enabled",
    "authentication.webhook.enabled",
    "authentication.x509.clientCAFile",
    "authorization.mode",
    "cgroupRoot",
    "cgroupsPerQOS",
    "clusterDNS",
    "clusterDomain",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "crashLoopBackOff.maxContainerRestartPeriod",
    "eventBurst",
    "eventRecordQPS",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "fileCheckFrequency",
    "healthzBindAddress",
    "healthzPort",
    "httpCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReserved",
    "logging.format",
    "logging.verbosity",
    "maxParallelImagePulls",
    "maxPods",
    "nodeLeaseDurationSeconds",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "podLogsDir",
    "podPidsLimit",
    "port",
    "preloadedImagesVerificationAllowlist",
    "providerID",
    "registerNode",
    "registerWithTaints",
    "registryBurst",
    "registryPullQPS",
    "resolvConf",
    "serializeImagePulls",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "staticPodPath",
    "staticPodURL",
    "staticPodURLHeader",
    "syncFrequency",
    "systemReserved",
    "tlsCertFile",
    "tlsPrivateKeyFile",
];

/// Fields of KubeletConfiguration v1beta1 that this agent has no use for, or not yet.
pub(crate) const MEANINGLESS: &[&str] = &[
    "allowedUnsafeSysctls",
    "authentication.webhook.cacheTTL",
    "authorization.webhook.cacheAuthorizedTTL",
    "authorization.webhook.cacheUnauthorizedTTL",
    "cgroupDriver",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuCFSQuota",
    "cpuCFSQuotaPeriod",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "defaultPodSysctls",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "hairpinMode",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging.flushFrequency",
    "logging.options",
    "logging.vmodule",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeStatusMaxImages",
    "oomScoreAdj",
    "podCIDR",
    "podsPerCore",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "reservedMemory",
    "reservedSystemCPUs",
    "rotateCertificates",
    "runOnce",
    "runtimeRequestTimeout",
    "seccompDefault",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "singleProcessOOMKill",
    "streamingConnectionIdleTimeout",
    "systemCgroups",
    "systemReservedCgroup",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// The fields of NoduleConfiguration.
pub(crate) const NODULE: &[&str] = &[
    "compile.memory",
    "compile.output",
    "compile.parallel",
    "compile.timeout",
    "compile.user",
    "compilePath",
    "containerLogsDir",
    "imageCredentialProviderBinDir",
    "imageCredentialProviderConfigFile",
    "labels.arch",
    "labels.os",
    "network.deny",
    "network.denyDefaults",
    "network.rootCertificates",
    "plainHTTPRegistries",
    "registryConfigPath",
    "podUsers.count",
    "podUsers.first",
    "runDir",
    "sandboxStart",
    "sandboxPath",
];

/// Takes the meaningless fields out of a document, and names those that ask for something. A field that is in neither
/// list is an error.
pub(crate) fn sort_out(
    document: &mut Map<String, Value>,
    useful: &[&str],
    meaningless: &[&str],
) -> Result<Vec<String>> {
    let mut named = Vec::new();
    Known { useful, meaningless }.walk(document, "", &mut named)?;
    Ok(named)
}

struct Known<'a> {
    useful: &'a [&'a str],
    meaningless: &'a [&'a str],
}

impl Known<'_> {
    fn walk(
        &self,
        fields: &mut Map<String, Value>,
        above: &str,
        named: &mut Vec<String>,
    ) -> Result<()> {
        let names: Vec<_> = fields.keys().cloned().collect();
        for name in names {
            let path = format!("{above}{name}");
            if self.meaningless.contains(&path.as_str()) {
                let asked = fields.remove(&name).is_some_and(|value| !is_nothing(&value));
                named.extend(asked.then_some(path));
            } else if !self.useful.contains(&path.as_str()) {
                self.below(fields.entry(name).or_insert(Value::Null), &path, named)?;
            }
        }
        Ok(())
    }

    /// The path is no field itself; some may begin with it.
    fn below(&self, value: &mut Value, path: &str, named: &mut Vec<String>) -> Result<()> {
        let prefix = format!("{path}.");
        if !self.all().any(|known| known.starts_with(&prefix)) {
            bail!("unknown field \"{path}\"{}", self.nearest(path));
        }
        match value {
            Value::Object(fields) => self.walk(fields, &prefix, named),
            Value::Null => Ok(()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                bail!("field \"{path}\": a mapping is expected here")
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.useful.iter().chain(self.meaningless).copied()
    }

    /// What may have been meant.
    fn nearest(&self, path: &str) -> String {
        let similar = |known: &&str| strsim::jaro_winkler(known, path);
        let nearest = self.all().max_by(|a, b| similar(a).total_cmp(&similar(b)));
        let near = nearest.filter(|known| similar(known) > 0.8);
        near.map_or_else(
            || ": remove it".to_owned(),
            |known| format!(": did you mean \"{known}\"?"),
        )
    }
}

/// kubeadm writes out many fields with values that mean "the default".
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sorted(document: Value) -> Result<(Value, Vec<String>)> {
        let Value::Object(mut fields) = document else { panic!("no mapping") };
        let named = sort_out(&mut fields, KUBELET, MEANINGLESS)?;
        Ok((Value::Object(fields), named))
    }

    #[test]
    fn what_means_nothing_here_is_named_and_taken_out() {
        let document = json!({"maxPods": 5, "cgroupDriver": "systemd", "logging": {"flushFrequency": 5, "format": "json"}});
        let (left, named) = sorted(document).unwrap();
        assert_eq!(left, json!({"maxPods": 5, "logging": {"format": "json"}}));
        assert_eq!(named, ["cgroupDriver", "logging.flushFrequency"]);
    }

    #[test]
    fn defaults_that_were_written_out_are_not_named() {
        let document = json!({"memorySwap": {}, "volumeStatsAggPeriod": "0s", "readOnlyPort": 0, "clusterDNS": null,
            "logging": {"options": {"json": {"infoBufferSize": "0"}}, "flushFrequency": 0}, "failSwapOn": false});
        assert_eq!(sorted(document).unwrap().1, Vec::<String>::new());
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_nearest_known_one() {
        let table = [
            (json!({"maxPod": 1}), "unknown field \"maxPod\": did you mean \"maxPods\"?"),
            (
                json!({"authentication": {"x509": {"clientCAfile": "f"}}}),
                "unknown field \"authentication.x509.clientCAfile\": did you mean \"authentication.x509.clientCAFile\"?",
            ),
            (json!({"zzz": 1}), "unknown field \"zzz\": remove it"),
            (json!({"logging": "json"}), "field \"logging\": a mapping is expected here"),
        ];
        for (document, message) in table {
            assert_eq!(sorted(document).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn maps_have_keys_of_their_own() {
        let document =
            json!({"kubeReserved": {"cpu": "1"}, "evictionHard": {"memory.available": "5%"}});
        assert_eq!(sorted(document.clone()).unwrap(), (document, Vec::new()));
    }

    #[test]
    fn no_field_is_in_both_lists() {
        assert!(KUBELET.iter().all(|field| !MEANINGLESS.contains(field)));
    }
}
