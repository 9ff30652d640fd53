//! A server that runs, with a pod to show.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use nodule_api::{Authorization, Config, Health, Metrics, Node, Pem, Server, Tls};
use nodule_logs::{Rotation, Writer};
use nodule_pod::{Instance, Log, LogError};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api_server::ApiServer;
use crate::certificates::{Authority, Identity};
use crate::client::{Client, Dial};

pub(crate) struct Served {
    pub(crate) port: u16,
    pub(crate) servers: Authority,
    pub(crate) clients: Authority,
    /// Whom the API server is.
    pub(crate) admin: Identity,
    pub(crate) shown: Shown,
    pub(crate) works: Arc<AtomicBool>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: JoinSet<()>,
}

/// Pod `pod` in namespace `ns`: container `runs` has a log, `waits` has none.
#[derive(Clone)]
pub(crate) struct Shown {
    folder: Arc<TempDir>,
    /// That `runs` has ended. Its receivers are those who read its log.
    pub(crate) ended: watch::Sender<bool>,
}

impl Served {
    /// Lets in everybody who is known.
    pub(crate) async fn open() -> Self {
        Self::with(Authorization::AlwaysAllow, &ApiServer::failing(500).await).await
    }

    pub(crate) async fn with(authorization: Authorization, api_server: &ApiServer) -> Self {
        let servers = Authority::new("servers");
        let identity = servers.server("localhost");
        let (certificate, key) = (Pem::Text(identity.certificate), Pem::Text(identity.key));
        Self::with_certificate(authorization, api_server, servers, certificate, key).await
    }

    pub(crate) async fn with_certificate(
        authorization: Authorization,
        api_server: &ApiServer,
        servers: Authority,
        certificate: Pem,
        key: Pem,
    ) -> Self {
        let clients = Authority::new("clients");
        let admin = clients.client("kube-apiserver", ["masters", "others"]);
        let tls = Tls { certificate, key, client_ca: Some(Pem::Text(clients.pem.clone())) };
        let config = Config { tls, node: "node-1".to_owned(), authorization };
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
        let port = server.port();

        let (stop, shown) = (CancellationToken::new(), Shown::new());
        let works = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&works);
        let health = Health::new(move || {
            if asked.load(Ordering::SeqCst) { Ok(()) } else { Err("stuck".to_owned()) }
        });
        let metrics = Metrics::default();
        let (node, counted) = (shown.clone().node(), metrics.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(node, api_server.client(), health, counted, stop.clone()));
        Served { port, servers, clients, admin, shown, works, metrics, stop, tasks }
    }

    pub(crate) fn dial<'a>(&'a self, identity: Option<&'a Identity>) -> Dial<'a> {
        Dial {
            port: self.port,
            trusts: &self.servers,
            identity,
            versions: rustls::ALL_VERSIONS,
            protocols: &[],
        }
    }

    pub(crate) async fn admin(&self) -> Client {
        self.dial(Some(&self.admin)).client().await
    }

    pub(crate) async fn stranger(&self) -> Client {
        self.dial(None).client().await
    }
}

impl Shown {
    fn new() -> Self {
        Shown { folder: Arc::new(tempfile::tempdir().unwrap()), ended: watch::Sender::new(false) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    pub(crate) fn writer(&self) -> Writer {
        let path = self.path();
        let folder = nodule_logs::folder(&path).unwrap();
        Writer::open(folder, path.file_name().unwrap(), Rotation::default()).unwrap()
    }

    fn node(self) -> Node {
        Node {
            pods: Box::new(|| {
                let mut pod = Pod::default();
                pod.metadata.name = Some("pod".to_owned());
                vec![pod]
            }),
            log: Box::new(move |namespace, pod, container, instance| {
                self.log((namespace, pod), container, instance)
            }),
        }
    }

    fn log(&self, pod: (&str, &str), container: &str, instance: Instance) -> Result<Log, LogError> {
        let (container, name) = (container.to_owned(), pod.1.to_owned());
        if pod != ("ns", "pod") {
            return Err(LogError::NoPod { pod: name });
        }
        match (container.as_str(), instance) {
            ("runs", Instance::Current) => {
                Ok(Log { path: self.path(), ended: self.ended.subscribe() })
            }
            ("runs", Instance::Previous) => Err(LogError::NoPrevious { container, pod: name }),
            ("waits", _) => Err(LogError::Waiting {
                container,
                pod: name,
                reason: "ContainerCreating".to_owned(),
            }),
            _ => Err(LogError::NoContainer { container, pod: name }),
        }
    }
}
