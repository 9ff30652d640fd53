//! The programs of a control plane: their command lines, and how each shows that it is ready.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::{Client, Config};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::audit;
use crate::binaries::Binaries;
use crate::layout::{Layout, Ports, Wanted, api_server};

/// How long a program may take until it is ready: an API server on a machine that also compiles needs a minute.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often a program is asked whether it is ready.
const ASK: Duration = Duration::from_millis(100);
/// How many lines of a log are shown of a program that did not start.
const TAIL: usize = 30;

/// One program.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    /// What answers 200 once it is ready.
    ready: String,
    /// The administrator's kubeconfig, for those that ask who asks.
    kubeconfig: PathBuf,
}

/// The wanted programs in the order in which they start.
pub(crate) fn parts(
    layout: &Layout,
    binaries: &Binaries,
    ports: Ports,
    wanted: Wanted,
) -> Result<Vec<Part>> {
    let mut list = Vec::new();
    if wanted.cluster {
        list.push((
            "etcd",
            "etcd",
            etcd(layout, ports),
            format!("http://127.0.0.1:{}/readyz", ports.etcd),
        ));
        list.push((
            "kube-apiserver",
            "kube-apiserver",
            kube_apiserver(layout, ports),
            format!("{}/readyz", api_server(ports)),
        ));
        let health = |port| format!("https://127.0.0.1:{port}/healthz");
        let name = "kube-controller-manager";
        list.push((
            name,
            name,
            controller_manager(layout, ports),
            health(ports.controller_manager),
        ));
        list.push((
            "kube-scheduler",
            "kube-scheduler",
            scheduler(layout, ports),
            health(ports.scheduler),
        ));
    }
    if wanted.registry {
        list.push((
            "registry",
            "registry",
            registry(layout, "registry"),
            format!("http://127.0.0.1:{}/", ports.registry),
        ));
    }
    if wanted.private_registry {
        let name = "private-registry";
        list.push((
            name,
            "registry",
            registry(layout, name),
            format!("http://127.0.0.1:{}/", ports.private_registry),
        ));
    }
    let part = |(name, program, args, ready)| {
        let (program, log) = (binaries.path(program)?.to_owned(), layout.log(name));
        Ok(Part { name, program, args, log, ready, kubeconfig: layout.kubeconfig() })
    };
    list.into_iter().map(part).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn etcd(layout: &Layout, ports: Ports) -> Vec<String> {
    let (client, peer) = (
        format!("http://127.0.0.1:{}", ports.etcd),
        format!("http://127.0.0.1:{}", ports.etcd_peer),
    );
    vec![
        format!("--data-dir={}", path(&layout.data("etcd"))),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // Nothing here outlives the machine.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn kube_apiserver(layout: &Layout, ports: Ports) -> Vec<String> {
    let pki = |file| path(&layout.pki(file));
    vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.api),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        // The address of this machine is no loopback address, and the API server listens on no other.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", pki("serving.crt")),
        format!("--tls-private-key-file={}", pki("serving.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--enable-bootstrap-token-auth=true".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP,Hostname".to_owned(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        format!("--audit-policy-file={}", pki("audit.yaml")),
        format!("--audit-log-path={}", path(&layout.log(audit::LOG))),
    ]
}

fn controller_manager(layout: &Layout, ports: Ports) -> Vec<String> {
    let pki = |file| path(&layout.pki(file));
    let mut args = component(layout, "controller-manager.kubeconfig", ports.controller_manager);
    args.extend([
        "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("service-account.key")),
    ]);
    args
}

fn scheduler(layout: &Layout, ports: Ports) -> Vec<String> {
    component(layout, "scheduler.kubeconfig", ports.scheduler)
}

fn component(layout: &Layout, kubeconfig: &str, port: u16) -> Vec<String> {
    let kubeconfig = path(&layout.pki(kubeconfig));
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", path(&layout.pki("serving.crt"))),
        format!("--tls-private-key-file={}", path(&layout.pki("serving.key"))),
        "--leader-elect=false".to_owned(),
    ]
}

fn registry(layout: &Layout, name: &str) -> Vec<String> {
    vec!["serve".to_owned(), path(&layout.pki(&format!("{name}.yaml")))]
}

impl Part {
    /// Starts the program and waits until it is ready. The program ends with this process, whatever ends it.
    pub(crate) async fn start(&self) -> Result<Child> {
        let mut child = self.spawn()?;
        let ready = tokio::select! {
            status = child.wait() => Err(anyhow::anyhow!("it ended: {}", status?)),
            ready = timeout(PATIENCE, self.ready()) => match ready {
                Ok(ready) => ready,
                Err(_late) => Err(anyhow::anyhow!("not ready after {} s", PATIENCE.as_secs())),
            },
        };
        ready.with_context(|| {
            format!("start {}; the end of its log:\n{}", self.name, tail(&self.log))
        })?;
        Ok(child)
    }

    #[expect(unsafe_code, reason = "the death signal has to be set between fork and exec")]
    fn spawn(&self) -> Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C at the terminal is for the supervisor alone.
        command.process_group(0).kill_on_drop(true);
        // The registry would look for a collector of traces.
        command.env("OTEL_TRACES_EXPORTER", "none");
        let parent = getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the signal was asked for.
            if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        };
        // SAFETY: the closure makes two system calls and neither allocates nor takes a lock.
        unsafe { command.pre_exec(die_with_parent) };
        command.spawn().with_context(|| format!("start {}", self.program.display()))
    }

    async fn ready(&self) -> Result<()> {
        let client = self.client().await?;
        let mut ask = interval(ASK);
        loop {
            ask.tick().await;
            let request = http::Request::get(&self.ready).body(Vec::new())?;
            if client.request_text(request).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn client(&self) -> Result<Client> {
        let url: http::Uri = self.ready.parse()?;
        let mut config = match url.scheme_str() {
            Some("https") => {
                let config = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
                Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default())
                    .await?
            }
            Some("http") => Config::new(url.clone()),
            _ => bail!("{url} is neither HTTP nor HTTPS"),
        };
        config.cluster_url = http::Uri::builder()
            .scheme(url.scheme_str().unwrap_or("http"))
            .authority(url.authority().context("a URL has a host")?.as_str())
            .path_and_query("/")
            .build()?;
        Ok(Client::try_from(config)?)
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
}
