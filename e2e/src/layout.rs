//! The folder of one control plane: what is in it, and the certificates that are made for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::audit;
use crate::pki::{Authority, Pair, Subject, service_account_keys, write_private};
use crate::process::Process;
use crate::{kubeconfig, ports};

/// What shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Wanted {
    /// Starts etcd, API server, controller-manager and scheduler.
    #[arg(long)]
    pub cluster: bool,
    /// Starts a registry that anybody may use.
    #[arg(long)]
    pub registry: bool,
    /// Starts a registry that asks for a password.
    #[arg(long)]
    pub private_registry: bool,
    /// The registry's port, if it is free.
    #[arg(long)]
    pub registry_port: Option<u16>,
}

/// The ports on 127.0.0.1, chosen once: what is stopped and started again keeps its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// etcd, for the API server.
    pub etcd: u16,
    /// etcd, for other members; there are none, but it wants to listen.
    pub etcd_peer: u16,
    /// The API server.
    pub api: u16,
    /// The controller-manager's health and metrics.
    pub controller_manager: u16,
    /// The scheduler's health and metrics.
    pub scheduler: u16,
    /// The registry.
    pub registry: u16,
    /// The registry that asks for a password.
    pub private_registry: u16,
}

/// What the supervisor wrote about itself once all was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The supervisor.
    pub supervisor: Process,
    /// What it started.
    pub wanted: Wanted,
    /// Where.
    pub ports: Ports,
}

/// A control plane's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    folder: PathBuf,
}

/// The user and the password of the registry that asks for them.
pub const PRIVATE_REGISTRY: (&str, &str) = ("probe", "right-password");
/// The password's bcrypt hash (cost 4: it protects nothing).
const PRIVATE_REGISTRY_HASH: &str = "$2b$04$abcdefghijklmnopqrstuuS80hwFD6gSIL20SCUGvmL7S939BjOHW";

impl Layout {
    /// The layout of this folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Where a program's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// A file among the certificates and keys.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.folder.join("pki").join(file)
    }

    /// What a program keeps.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    /// Signs what the API server trusts: clients, and nodes' serving certificates.
    pub fn authority(&self) -> Result<Authority> {
        Authority::open(&self.folder.join("pki"), "ca")
    }

    /// What the supervisor said when all was ready; none where nothing runs.
    pub fn state(&self) -> Option<State> {
        let text = fs::read_to_string(self.folder.join("state.json")).ok()?;
        let state: State = serde_json::from_str(&text).ok()?;
        state.supervisor.runs().then_some(state)
    }

    /// Says that all is ready.
    pub(crate) fn write_state(&self, state: &State) -> Result<()> {
        write_private(&self.folder.join("state.json"), &serde_json::to_string_pretty(state)?)
    }

    /// Makes the folder with every certificate and configuration file.
    pub(crate) fn prepare(&self, wanted: Wanted) -> Result<Ports> {
        for folder in ["pki", "logs", "data"] {
            let path = self.folder.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let ports = choose_ports(wanted)?;
        if wanted.cluster {
            self.certify(ports)?;
        }
        write_private(&self.pki("audit.yaml"), audit::POLICY)?;
        self.configure_registry("registry", ports.registry, "")?;
        self.configure_registry(
            "private-registry",
            ports.private_registry,
            &self.password_file()?,
        )?;
        Ok(ports)
    }

    fn certify(&self, ports: Ports) -> Result<()> {
        let folder = self.folder.join("pki");
        let authority = Authority::create(&folder, "ca")?;
        Authority::create(&folder, "front-proxy-ca")?
            .issue(&client("front-proxy-client", None))?
            .write(&folder, "front-proxy")?;
        service_account_keys(&folder, "service-account")?;
        let hosts = SERVER_NAMES.map(str::to_owned);
        authority
            .issue(&Subject { name: "kube-apiserver", group: None, hosts: &hosts })?
            .write(&folder, "serving")?;
        authority.issue(&client("kube-apiserver", None))?.write(&folder, "kubelet-client")?;
        let users = [
            (self.kubeconfig(), client("kubernetes-admin", Some("system:masters"))),
            (
                self.pki("controller-manager.kubeconfig"),
                client("system:kube-controller-manager", None),
            ),
            (self.pki("scheduler.kubeconfig"), client("system:kube-scheduler", None)),
        ];
        for (path, subject) in users {
            let user: Pair = authority.issue(&subject)?;
            kubeconfig::write(&path, &api_server(ports), authority.certificate(), &user)?;
        }
        Ok(())
    }

    fn password_file(&self) -> Result<String> {
        let path = self.pki("htpasswd");
        write_private(&path, &format!("{}:{PRIVATE_REGISTRY_HASH}\n", PRIVATE_REGISTRY.0))?;
        Ok(format!("auth:\n  htpasswd:\n    realm: nodule\n    path: {}\n", path.display()))
    }

    fn configure_registry(&self, name: &str, port: u16, auth: &str) -> Result<()> {
        let storage = self.data(name);
        let content = format!(
            "version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
{auth}",
            storage.display()
        );
        write_private(&self.pki(&format!("{name}.yaml")), &content)
    }
}

/// The names in the API server's certificate; 10.0.0.1 is the first address of the Service range.
const SERVER_NAMES: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "10.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
];

fn client<'a>(name: &'a str, group: Option<&'a str>) -> Subject<'a> {
    Subject { name, group, hosts: &[] }
}

/// The API server's URL.
pub(crate) fn api_server(ports: Ports) -> String {
    format!("https://127.0.0.1:{}", ports.api)
}

fn choose_ports(wanted: Wanted) -> Result<Ports> {
    Ok(Ports {
        etcd: ports::free()?,
        etcd_peer: ports::free()?,
        api: ports::free()?,
        controller_manager: ports::free()?,
        scheduler: ports::free()?,
        registry: wanted.registry_port.map_or_else(ports::free, ports::preferably)?,
        private_registry: ports::free()?,
    })
}
