//! From flags and file to what each crate needs: parsed and checked once, here.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use nodule_api::{Authorization, Pem, Tls};

use crate::{
    cli::{Arguments, LogFormat},
    host::Host,
    statics::Places,
};

mod eviction;
mod fields;
mod file;
mod images;
mod kubelet;
mod local;
mod network;
mod node;
mod nodule;
mod pods;
mod providers;
mod rates;
mod shutdown;
mod values;

pub(crate) use file::File;
use images::images;
pub(crate) use kubelet::Kubelet;
use kubelet::{Format, Mode};
pub(crate) use local::{Alone, images_of};
use node::{addresses, name, node};
use pods::pods;
pub(crate) use rates::Rates;

/// The kubelet's port, and that of its `/healthz`.
const PORT: u16 = 10250;
const HEALTHZ_PORT: u16 = 10248;
/// Where systemd-logind is told how long a shutdown may wait: last, as the kubelet's own.
const LOGIND: &str = "/etc/systemd/logind.conf.d/99-nodule.conf";

/// What the agent is to do, in the parts that its crates take.
pub(crate) struct Settings {
    pub(crate) kubeconfig: PathBuf,
    /// Without the port, which is known when the API listens.
    pub(crate) node: nodule_node::Config,
    pub(crate) api: nodule_api::Config,
    pub(crate) listen: SocketAddr,
    /// Where `/healthz` is served, if anywhere.
    pub(crate) health: Option<SocketAddr>,
    pub(crate) images: nodule_image::Config,
    pub(crate) pods: nodule_pod::Config,
    /// How often the API server is asked.
    pub(crate) rates: Rates,
    /// How a shutdown of the machine is waited for, if it is.
    pub(crate) shutdown: Option<nodule_node::Shutdown>,
    pub(crate) statics: Places,
    pub(crate) log: Log,
    /// Fields of the file that this agent has no use for.
    pub(crate) meaningless: Vec<String>,
}

/// The agent's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) verbosity: u8,
}

impl Settings {
    /// Flags win over the file, the file over defaults.
    pub(crate) fn new(arguments: Arguments, file: File, host: &Host) -> Result<Self> {
        check_trust(&file.kubelet)?;
        let name = name(&arguments, host)?;
        let addresses = addresses(&arguments, host)?;
        let pods = pods(&arguments, &file, host, &name, &addresses)?;
        Ok(Self {
            api: api(&arguments, &file, &name)?,
            listen: listen(&arguments, &file),
            health: health(&arguments, &file),
            images: images(&arguments, &file, host)?,
            shutdown: shutdown(&pods),
            pods,
            rates: Rates::new(&file.kubelet),
            statics: Places::new(&file.kubelet, &name),
            log: log(&arguments, &file),
            node: node(&arguments, &file, host, name, addresses)?,
            kubeconfig: arguments.kubeconfig,
            meaningless: file.meaningless,
        })
    }
}

fn shutdown(pods: &nodule_pod::Config) -> Option<nodule_node::Shutdown> {
    Some(nodule_node::Shutdown {
        bus: None,
        delay: shutdown::delay(&pods.shutdown)?,
        drop_in: LOGIND.into(),
    })
}

/// What the operator relies on and this agent does not do is no warning.
fn check_trust(kubelet: &Kubelet) -> Result<()> {
    let authentication = &kubelet.authentication;
    ensure!(
        authentication.anonymous.enabled != Some(true),
        "field \"authentication.anonymous.enabled\": nobody is served unknown: set it to false"
    );
    ensure!(
        authentication.webhook.enabled != Some(false),
        "field \"authentication.webhook.enabled\": bearer tokens are always checked with the API server: remove it"
    );
    ensure!(
        kubelet.register_node != Some(false),
        "field \"registerNode\": the node always registers itself: remove it"
    );
    Ok(())
}

fn api(arguments: &Arguments, file: &File, name: &str) -> Result<nodule_api::Config> {
    let kubelet = &file.kubelet;
    let certificate = first(&arguments.tls_cert_file, &kubelet.tls_cert_file);
    let key = first(&arguments.tls_private_key_file, &kubelet.tls_private_key_file);
    let (certificate, key) = certificate.zip(key).context(
        "the HTTPS API needs a serving certificate and its key: set --tls-cert-file and --tls-private-key-file, \
         or tlsCertFile and tlsPrivateKeyFile",
    )?;
    let client_ca = first(&arguments.client_ca_file, &kubelet.authentication.x509.client_ca_file);
    let authorization = match kubelet.authorization.mode {
        Some(Mode::AlwaysAllow) => Authorization::AlwaysAllow,
        Some(Mode::Webhook) | None => Authorization::Webhook,
    };
    let tls = Tls {
        certificate: Pem::File(certificate),
        key: Pem::File(key),
        client_ca: client_ca.map(Pem::File),
    };
    Ok(nodule_api::Config { tls, node: name.to_owned(), authorization })
}

/// A file that is named by an empty string is not named.
fn first(flag: &Option<PathBuf>, field: &Option<PathBuf>) -> Option<PathBuf> {
    flag.clone().or_else(|| field.clone()).filter(|path| !path.as_os_str().is_empty())
}

fn listen(arguments: &Arguments, file: &File) -> SocketAddr {
    let address =
        arguments.address.or(file.kubelet.address).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    SocketAddr::new(address, arguments.port.or(file.kubelet.port).unwrap_or(PORT))
}

fn health(arguments: &Arguments, file: &File) -> Option<SocketAddr> {
    let address = arguments.healthz_bind_address.or(file.kubelet.healthz_bind_address);
    let port = arguments.healthz_port.or(file.kubelet.healthz_port).unwrap_or(HEALTHZ_PORT);
    (port != 0).then(|| SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), port))
}

/// The agent's other programs lie beside it.
fn program(path: &Option<PathBuf>, host: &Host, name: &str) -> PathBuf {
    path.clone().unwrap_or_else(|| host.programs.join(name))
}

fn log(arguments: &Arguments, file: &File) -> Log {
    let logging = &file.kubelet.logging;
    let format = match logging.format {
        Some(Format::Json) => LogFormat::Json,
        Some(Format::Text) | None => LogFormat::Human,
    };
    Log {
        format: arguments.format().unwrap_or(format),
        verbosity: arguments.verbosity.or(logging.verbosity).unwrap_or_default(),
    }
}

#[cfg(test)]
mod testing {
    use clap::Parser;

    use super::*;

    pub(super) const KUBELET: &str =
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    pub(super) const NODULE: &str = "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\n";

    pub(super) fn settings(flags: &[&str], file: &str) -> Result<Settings> {
        let always = ["nodule", "--kubeconfig=k", "--tls-cert-file=c", "--tls-private-key-file=p"];
        let arguments = Arguments::try_parse_from(always.iter().chain(flags))?;
        let host = Host {
            name: "Machine".to_owned(),
            addresses: vec!["10.0.0.9".parse()?, "fd00::9".parse()?],
            programs: "/opt".into(),
            is_root: true,
            cpus: 4,
            memory: 8 << 30,
        };
        Settings::new(arguments, File::parse(file)?, &host)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::Path, time::Duration};

    use nodule_node::Periods;

    use super::testing::{KUBELET, settings};
    use super::*;

    #[test]
    fn defaults_are_the_kubelets() {
        let settings = settings(&[], "").unwrap();
        assert_eq!(settings.listen.to_string(), "0.0.0.0:10250");
        assert_eq!(settings.health.unwrap().to_string(), "127.0.0.1:10248");
        let node = settings.node;
        assert_eq!(
            (node.name.as_str(), node.hostname.as_str(), node.max_pods),
            ("machine", "machine", 110)
        );
        assert_eq!(node.addresses, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(node.periods, Periods::default());
        let taints: Vec<_> =
            node.taints.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(
            taints,
            [("kubernetes.io/arch", "NoSchedule"), ("kubernetes.io/arch", "NoExecute")]
        );
        assert_eq!(settings.pods.sandbox, Path::new("/opt/nodule-sandbox"));
        assert_eq!((settings.pods.log_max_size, settings.pods.log_max_files), (10 << 20, 5));
        assert_eq!(settings.pods.logs, Path::new("/var/log/pods"));
        assert_eq!(settings.pods.log_links, Path::new("/var/log/containers"));
        assert_eq!(settings.images.root, Path::new("/var/lib/nodule/images"));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = format!(
            "{KUBELET}maxPods: 5\nport: 1\naddress: 127.0.0.1\nhealthzPort: 2\nlogging:\n  format: json\n"
        );
        let from_file = settings(&[], &file).unwrap();
        assert_eq!(
            (from_file.node.max_pods, from_file.listen.to_string().as_str()),
            (5, "127.0.0.1:1")
        );
        assert_eq!((from_file.health.unwrap().port(), from_file.log.format), (2, LogFormat::Json));
        let flags = ["--max-pods=6", "--port=0", "--healthz-port=0", "--log-format=human"];
        let from_flags = settings(&flags, &file).unwrap();
        assert_eq!((from_flags.node.max_pods, from_flags.listen.port()), (6, 0));
        assert_eq!((from_flags.health, from_flags.log.format), (None, LogFormat::Human));
    }

    #[test]
    fn static_pods_come_from_where_the_kubelets_do() {
        let statics = |fields: &str| settings(&[], &format!("{KUBELET}{fields}")).unwrap().statics;
        assert_eq!(statics("staticPodPath: \"\"\nfileCheckFrequency: 0s\n").folder, None);
        let seconds = |seconds| Duration::from_secs(seconds);
        let folder = statics("staticPodPath: /m\n").folder.unwrap();
        assert_eq!(folder, (PathBuf::from("/m"), seconds(20)));
        let url = statics(
            "staticPodURL: http://h/\nhttpCheckFrequency: 5s\nstaticPodURLHeader: {a: [b]}\n",
        );
        let url = url.url.unwrap();
        assert_eq!((url.url.as_str(), url.period), ("http://h/", seconds(5)));
        assert_eq!(url.headers["a"], ["b"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_field_and_remedy() {
        let table: &[(&[&str], &str, &str)] = &[
            (&["--hostname-override=a_b"], "", "use --hostname-override"),
            (&["--node-ip=10.0.0.1,10.0.0.2"], "", "one of each family"),
            (&["--tls-cert-file="], "", "--tls-cert-file"),
            (&["--node-labels=node-role.kubernetes.io/x="], "", "--node-labels"),
            (&["--register-with-taints=a"], "", "use KEY=VALUE:EFFECT"),
            (
                &[],
                "authentication:\n  anonymous:\n    enabled: true\n",
                "authentication.anonymous.enabled",
            ),
            (
                &[],
                "authentication:\n  webhook:\n    enabled: false\n",
                "authentication.webhook.enabled",
            ),
            (&[], "registerNode: false\n", "registerNode"),
            (&[], "registerWithTaints:\n- key: a\n  effect: x\n", "use NoSchedule"),
            (&[], "kubeReserved:\n  gpu: 1\n", "kubeReserved"),
            (&[], "evictionHard:\n  memory: 1\n", "evictionHard"),
            (&[], "evictionSoft:\n  memory.available: 1Gi\n", "field \"evictionSoftGracePeriod\""),
            (&[], "containerLogMaxSize: big\n", "containerLogMaxSize"),
            (&[], "containerLogMaxFiles: 1\n", "use 2 or more"),
            (&[], "serializeImagePulls: true\nmaxParallelImagePulls: 2\n", "maxParallelImagePulls"),
            (&[], "nodeLeaseDurationSeconds: 1\n", "use 4 or more"),
        ];
        for (flags, file, part) in table {
            let result = settings(flags, &format!("{KUBELET}{file}"));
            let error = format!("{:#}", result.err().expect(part));
            assert!(error.contains(part), "{error}");
        }
    }
}
