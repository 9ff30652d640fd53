//! The cluster that tests use: one for all tests of a run, or one of a test's own where it breaks the cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::Client;
use kube::config::Kubeconfig;
use tokio::sync::OnceCell;

use crate::audit::{self, Request};
use crate::binaries::Binaries;
use crate::control::{self, Lifeline};
use crate::credentials::Credentials;
use crate::kubectl::Kubectl;
use crate::layout::{Layout, PRIVATE_REGISTRY, Wanted};
use crate::push::Registry;
use crate::{access, paths};

/// Tells the programs that a run starts which folder, and so which cluster, is the run's.
pub const FOLDER: &str = "NODULE_E2E_FOLDER";
/// The administrator's kubeconfig of a cluster to test on instead of one of our own. Not `KUBECONFIG`: nobody shall test
/// on a cluster by accident.
const KUBECONFIG: &str = "NODULE_E2E_KUBECONFIG";
/// HOST:PORT of a registry (plain HTTP) to use instead of one of our own.
const REGISTRY: &str = "NODULE_E2E_REGISTRY";

/// A cluster and its registries.
pub struct Cluster {
    folder: PathBuf,
    layout: Layout,
    kubeconfig: PathBuf,
    kubectl: Kubectl,
    registry: Registry,
    private_registry: Registry,
    /// Held by whoever started it.
    _lifeline: Option<Lifeline>,
}

impl Cluster {
    /// The run's cluster: the one of whoever started this program, else one that lives as long as this process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| async {
                match paths::set(FOLDER) {
                    Some(folder) => Self::open(&folder, paths::set(KUBECONFIG), None),
                    None => Self::start().await,
                }
            })
            .await
    }

    /// Starts what the run lacks, and pushes the test guest.
    pub async fn start() -> Result<Self> {
        Self::start_with(paths::set(KUBECONFIG)).await
    }

    /// A cluster for one test alone, always one of our own.
    pub async fn own() -> Result<Self> {
        Self::start_with(None).await
    }

    async fn start_with(kubeconfig: Option<PathBuf>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("nodule-e2e-").tempdir()?.keep();
        let wanted = Wanted {
            cluster: kubeconfig.is_none(),
            registry: true,
            private_registry: true,
            registry_port: None,
        };
        let lifeline = control::start(&Layout::new(folder.join("control-plane")), wanted, &folder)?;
        let cluster = Self::open(&folder, kubeconfig, Some(lifeline))?;
        cluster.registry.push_probe().await?;
        cluster.private_registry.push_probe().await?;
        Ok(cluster)
    }

    fn open(folder: &Path, foreign: Option<PathBuf>, lifeline: Option<Lifeline>) -> Result<Self> {
        let layout = Layout::new(folder.join("control-plane"));
        let ports =
            layout.state().with_context(|| format!("nothing runs in {}", folder.display()))?.ports;
        let kubeconfig = foreign.unwrap_or_else(|| layout.kubeconfig());
        let own = |name: &str, port, login| Registry {
            host: format!("127.0.0.1:{port}"),
            login,
            storage: Some(layout.data(name)),
        };
        let (user, password) = PRIVATE_REGISTRY;
        let registry = match std::env::var(REGISTRY) {
            Ok(host) if !host.is_empty() => Registry { host, login: None, storage: None },
            _ => own("registry", ports.registry, None),
        };
        let login = Some((user.to_owned(), password.to_owned()));
        Ok(Self {
            kubectl: Kubectl::new(Binaries::find()?.path("kubectl")?, &kubeconfig),
            private_registry: own("private-registry", ports.private_registry, login),
            folder: folder.to_owned(),
            registry,
            kubeconfig,
            layout,
            _lifeline: lifeline,
        })
    }

    /// The folder of the run: what works in it is ended with the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a program of our own cluster has said: `registry`, `kube-apiserver`.
    pub fn log(&self, program: &str) -> Result<String> {
        let path = self.layout.log(program);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// What a node has asked our own API server for, by what that wrote down.
    pub fn asked(&self, node: &str) -> Result<Vec<Request>> {
        audit::of(&self.log(audit::LOG)?, node)
    }

    /// kubectl with the administrator's rights.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The registry that anybody may use.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry that asks for a password.
    pub fn private_registry(&self) -> &Registry {
        &self.private_registry
    }

    /// A client with the administrator's rights. A client belongs to the runtime that made it: each test makes its own.
    pub async fn client(&self) -> Result<Client> {
        access::client(&self.kubeconfig).await
    }

    /// Stops one program of our own cluster.
    pub fn stop(&self, program: &str) -> Result<()> {
        control::order(&self.layout, "stop", program)
    }

    /// Starts a stopped program again, and returns when it is ready.
    pub fn start_again(&self, program: &str) -> Result<()> {
        control::order(&self.layout, "start", program)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's URL.
    pub fn server(&self) -> Result<String> {
        let config = Kubeconfig::read_from(&self.kubeconfig)?;
        let cluster = config
            .clusters
            .into_iter()
            .next()
            .and_then(|named| named.cluster)
            .context("a cluster")?;
        cluster.server.context("a server")
    }

    /// Certificates for a new node.
    pub(crate) async fn credentials(&self, node: &str) -> Result<Credentials> {
        if self.layout.pki("ca.key").exists() {
            return Credentials::sign(&self.layout.authority()?, node);
        }
        Credentials::request(&Kubeconfig::read_from(&self.kubeconfig)?, node).await
    }

    /// A folder for one node of this run.
    pub(crate) fn node_folder(&self, node: &str) -> Result<PathBuf> {
        let folder = self.folder.join("nodes").join(node);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }
}
