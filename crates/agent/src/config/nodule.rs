use std::path::PathBuf;

use serde::Deserialize;

use super::values::GoDuration;

/// What is ours to configure (nodule.dev/v1alpha1).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Nodule {
    /// Registries, as in image names, that are asked over plain HTTP.
    #[serde(rename = "plainHTTPRegistries")]
    pub(crate) plain_http_registries: Vec<String>,
    /// The folder of containerd's `hosts.toml` files; without it, `/etc/nodule/certs.d`.
    pub(crate) registry_config_path: Option<PathBuf>,
    /// The kubelet's `CredentialProviderConfig`, or a folder of them.
    pub(crate) image_credential_provider_config_file: Option<PathBuf>,
    /// Where the programs lie that it names.
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
    /// `nodule-sandbox`; without it, the one beside this program.
    pub(crate) sandbox_path: Option<PathBuf>,
    /// `nodule-compile`; without it, the one beside this program.
    pub(crate) compile_path: Option<PathBuf>,
    pub(crate) compile: Compile,
    pub(crate) run_dir: Option<PathBuf>,
    /// Where log collectors find links to the logs of pods; without it, `containers` beside `podLogsDir`.
    pub(crate) container_logs_dir: Option<PathBuf>,
    pub(crate) labels: Labels,
    pub(crate) network: Network,
    pub(crate) sandbox_start: SandboxStart,
    pub(crate) pod_users: PodUsers,
}

/// How a container's process comes to be.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SandboxStart {
    /// A fork of one that is ready.
    #[default]
    Fork,
    /// A program of its own: its address layout is no other container's, at three times the time and memory.
    Exec,
}

/// The users of the host that pods become.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodUsers {
    pub(crate) first: Option<u32>,
    /// How many there are.
    pub(crate) count: Option<u32>,
}

/// What one compilation may use, and who it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Compile {
    /// A quantity of memory, 16Mi or more, 2Gi by default: a program takes about 35 times its size.
    pub(crate) memory: Option<String>,
    /// Processor time, 5m by default; on the clock it may take twice as long.
    pub(crate) timeout: GoDuration,
    /// A quantity of compiled code, 1Gi by default: it is about three times the size of the program.
    pub(crate) output: Option<String>,
    /// The user and group that the compiler becomes where the agent is root, 1999999999 by default. Nothing else on the
    /// machine should be this user, no pod (`podUsers`) and no service.
    pub(crate) user: Option<u32>,
    /// Compilations at the same time, 1 by default.
    pub(crate) parallel: Option<usize>,
}

/// What pods may not reach, and whom they believe.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Network {
    /// Blocks of addresses, with ports or without: `10.0.0.0/8`, `fd00::/8:80-90`.
    pub(crate) deny: Vec<String>,
    /// Whether what no pod should reach is denied too, which it is unless this is false.
    pub(crate) deny_defaults: Option<bool>,
    /// Files of certificates in PEM that the outgoing HTTPS of pods believes beside Mozilla's.
    pub(crate) root_certificates: Vec<PathBuf>,
}

/// What the node says that it is: its labels, taints and nodeInfo.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Labels {
    /// `kubernetes.io/arch`.
    pub(crate) arch: Option<String>,
    /// `kubernetes.io/os`.
    pub(crate) os: Option<String>,
}
