//! The folder of one node: credentials, configuration and the agent's command line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::credentials::{ADDRESS, Credentials};
use crate::pki::write_private;
use crate::{kubeconfig, ports};

/// The folder of its static pods, in its own.
const MANIFESTS: &str = "manifests";

/// What a node is made for.
pub struct Plan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The API server's URL.
    pub server: &'a str,
    /// Its certificates.
    pub credentials: &'a Credentials,
    /// Registries that speak plain HTTP.
    pub plain_http: &'a [String],
    /// More lines for its configuration (NoduleConfiguration).
    pub configuration: &'a str,
    /// Fields of its KubeletConfiguration, in the place of those that a test's node has else.
    pub kubelet: &'a Value,
    /// The most pods that it takes.
    pub max_pods: u32,
}

/// One node's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    folder: PathBuf,
    name: String,
    port: u16,
}

impl Node {
    /// Makes the folder: certificates for both directions, kubeconfig, configuration.
    pub fn prepare(folder: &Path, plan: &Plan<'_>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let node =
            Self { folder: folder.to_owned(), name: plan.name.to_owned(), port: ports::free()? };
        let manifests = node.file(MANIFESTS);
        fs::create_dir_all(&manifests)
            .with_context(|| format!("create {}", manifests.display()))?;
        let Credentials { client, serving, authority } = plan.credentials;
        kubeconfig::write(&node.file("kubeconfig"), plan.server, authority, client)?;
        serving.write(folder, "serving")?;
        write_private(&node.file("ca.crt"), authority)?;
        write_private(&node.file("config.yaml"), &configuration(plan, &manifests))?;
        Ok(node)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in the node's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the agent is started with. Everything that it writes stays in the folder.
    pub fn arguments(&self) -> Vec<String> {
        let path = |name| self.file(name).display().to_string();
        vec![
            format!("--kubeconfig={}", path("kubeconfig")),
            format!("--config={}", path("config.yaml")),
            format!("--root-dir={}", path("root")),
            format!("--run-dir={}", path("run")),
            format!("--pod-logs-dir={}", path("pod-logs")),
            format!("--tls-cert-file={}", path("serving.crt")),
            format!("--tls-private-key-file={}", path("serving.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={ADDRESS}"),
            format!("--port={}", self.port),
            "--healthz-port=0".to_owned(),
        ]
    }
}

fn configuration(plan: &Plan<'_>, manifests: &Path) -> String {
    let registries: String = plan.plain_http.iter().map(|host| format!("- {host}\n")).collect();
    format!(
        "{:#}
---
apiVersion: nodule.dev/v1alpha1
kind: NoduleConfiguration
plainHTTPRegistries:
{registries}{}",
        kubelet(plan, manifests),
        plan.configuration
    )
}

/// JSON is YAML, too.
fn kubelet(plan: &Plan<'_>, manifests: &Path) -> Value {
    let mut fields = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "maxPods": plan.max_pods,
        "staticPodPath": manifests,
        // Amounts, where the defaults are shares: whoever tries this has other things on the disk, too.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi",
        },
    });
    if let (Some(fields), Some(others)) = (fields.as_object_mut(), plan.kubelet.as_object()) {
        fields.extend(others.clone());
    }
    fields
}
