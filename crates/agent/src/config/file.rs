use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{fields, kubelet::Kubelet, nodule::Nodule};

/// A configuration file as it was read.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) kubelet: Kubelet,
    pub(crate) nodule: Nodule,
    /// Fields that ask for what this agent does not do.
    pub(crate) meaningless: Vec<String>,
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let place = || format!("configuration {}", path.display());
        let text = fs::read_to_string(path).with_context(place)?;
        Self::parse(&text).with_context(place)
    }

    /// Two documents at most, one of each kind, in any order.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let documents: Vec<Map<String, Value>> = serde_saphyr::from_multiple(text)?;
        let (mut file, mut seen) = (Self::default(), Vec::new());
        for mut document in documents {
            let kind = kind(&mut document)?;
            ensure!(!seen.contains(&kind), "two documents of kind {}: keep one", kind.name());
            match kind {
                Kind::Kubelet => {
                    file.meaningless =
                        fields::sort_out(&mut document, fields::KUBELET, fields::MEANINGLESS)?;
                    file.kubelet = typed(document)?;
                }
                Kind::Nodule => {
                    fields::sort_out(&mut document, fields::NODULE, &[])?;
                    file.nodule = typed(document)?;
                }
            }
            seen.push(kind);
        }
        Ok(file)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kubelet,
    Nodule,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "KubeletConfiguration",
            Self::Nodule => "NoduleConfiguration",
        }
    }
}

/// Takes out what names the document's kind.
fn kind(document: &mut Map<String, Value>) -> Result<Kind> {
    let mut take = |name| match document.remove(name) {
        Some(Value::String(value)) => value,
        _ => String::new(),
    };
    match (take("apiVersion").as_str(), take("kind").as_str()) {
        ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration") => Ok(Kind::Kubelet),
        ("nodule.dev/v1alpha1", "NoduleConfiguration") => Ok(Kind::Nodule),
        (version, kind) => bail!(
            "apiVersion \"{version}\" and kind \"{kind}\" are not known: use kubelet.config.k8s.io/v1beta1 \
             KubeletConfiguration or nodule.dev/v1alpha1 NoduleConfiguration"
        ),
    }
}

/// Nulls are as good as nothing, as they are for the kubelet.
fn typed<T: DeserializeOwned>(mut document: Map<String, Value>) -> Result<T> {
    strip(&mut document);
    serde_path_to_error::deserialize(Value::Object(document))
        .map_err(|error| anyhow!("field \"{}\": {}", error.path(), error.inner()))
}

fn strip(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    fields.values_mut().filter_map(Value::as_object_mut).for_each(strip);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    const NODULE: &str = "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\n";

    #[test]
    fn both_documents_are_read() {
        let text =
            format!("{KUBELET}maxPods: 7\n---\n{NODULE}plainHTTPRegistries:\n- localhost:5000\n");
        let file = File::parse(&text).unwrap();
        assert_eq!(file.kubelet.max_pods, Some(7));
        assert_eq!(file.nodule.plain_http_registries, ["localhost:5000"]);
    }

    #[test]
    fn nothing_and_nulls_are_the_defaults() {
        for text in
            [String::new(), format!("{KUBELET}maxPods: null\nauthentication:\n  x509: null\n")]
        {
            let file = File::parse(&text).unwrap();
            assert_eq!(file.kubelet.max_pods, None, "{text}");
        }
    }

    #[test]
    fn what_kubeadm_writes_is_read() {
        let text = format!(
            "{KUBELET}authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {{}}
evictionPressureTransitionPeriod: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
imageMaximumGCAge: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
memorySwap: {{}}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
shutdownGracePeriod: 0s
staticPodPath: /etc/kubernetes/manifests
syncFrequency: 0s
"
        );
        let file = File::parse(&text).unwrap();
        assert_eq!(file.kubelet.healthz_port, Some(10248));
        assert_eq!(file.kubelet.cluster_dns, [std::net::IpAddr::from([10, 96, 0, 10])]);
        assert_eq!(file.meaningless, ["cgroupDriver", "rotateCertificates"]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_field_and_remedy() {
        let table = [
            (format!("{KUBELET}maxPods: many\n"), "field \"maxPods\""),
            (format!("{KUBELET}port: 70000\n"), "field \"port\""),
            (format!("{KUBELET}authorization:\n  mode: Always\n"), "field \"authorization.mode\""),
            (format!("{KUBELET}syncFrequency: 10\n"), "field \"syncFrequency\""),
            (
                format!("{KUBELET}syncFrequency: 10x\n"),
                "\"10x\" is not a duration: use one such as 10s",
            ),
            (format!("{NODULE}sandboxpath: x\n"), "did you mean \"sandboxPath\"?"),
            (format!("{KUBELET}---\n{KUBELET}"), "two documents of kind KubeletConfiguration"),
            (
                "kind: Pod\napiVersion: v1\n".to_owned(),
                "apiVersion \"v1\" and kind \"Pod\" are not known",
            ),
            ("maxPods: 1\n".to_owned(), "apiVersion \"\" and kind \"\" are not known"),
            (format!("{KUBELET}maxPods: 1\nmaxPods: 2\n"), "maxPods"),
            ("- 1\n".to_owned(), "map"),
        ];
        for (text, part) in table {
            let error = format!("{:#}", File::parse(&text).unwrap_err());
            assert!(error.contains(part), "{text}\n{error}");
        }
    }
}
