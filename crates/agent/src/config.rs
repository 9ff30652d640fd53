//! From flags and file to what each crate needs: parsed and checked once, here.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Taint;
use nodule_api::{Authorization, Pem, Tls};
use nodule_node::{Periods, Reserved, quantity};

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
mod network;
mod nodule;
mod providers;
mod rates;
mod shutdown;
mod values;

pub(crate) use file::File;
use images::images;
pub(crate) use kubelet::Kubelet;
use kubelet::{Format, Mode, Verification};
use nodule::{PodUsers, SandboxStart};

/// The kubelet's port, and that of its `/healthz`.
const PORT: u16 = 10250;
const HEALTHZ_PORT: u16 = 10248;
/// The kubelet's `maxPods`.
const MAX_PODS: u32 = 110;
/// One request takes no longer, and none of the Lease's longer than the time between two renewals.
const REQUEST: Duration = Duration::from_secs(10);
/// The kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
const LOG_SIZE: &str = "10Mi";
const LOG_FILES: u32 = 5;
/// The kubelet's `syncFrequency` and the longest back-off between two runs of a container.
const SYNC: Duration = Duration::from_secs(60);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// The users that pods become: above those that systems give to people, services and containers (systemd's "Users, Groups,
/// UIDs and GIDs on systemd systems"), and within what the API can say.
const FIRST_USER: u32 = 2_000_000_000;
const USERS: u32 = 1_000_000;
const LAST_USER: u32 = i32::MAX as u32;
/// Where systemd-logind is told how long a shutdown may wait: last, as the kubelet's own.
const LOGIND: &str = "/etc/systemd/logind.conf.d/99-nodule.conf";
/// The users of pods without a cluster: after those of a node's.
const FIRST_LOCAL_USER: u32 = FIRST_USER + USERS;
/// Their cgroup, which the agent makes.
const LOCAL_GROUP: &str = "nodule";
/// What the node says that it is. Programs may import WASI preview 1 and preview 2.
const ARCH: &str = "wasm32-wasi";
const OS: &str = "wasi";
const WASI: &str = "p1_p2_p3";

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
            statics: Places::new(&file.kubelet, &name),
            log: log(&arguments, &file),
            node: node(&arguments, &file, name, addresses)?,
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

/// What an agent without a cluster is to do.
pub(crate) struct Alone {
    pub(crate) images: nodule_image::Config,
    pub(crate) pods: nodule_pod::Config,
    pub(crate) log: Log,
}

impl Settings {
    /// For an agent without a cluster, which keeps everything below these folders. Beside the agent of a node on the same
    /// machine it is another: it has users and cgroups of its own.
    pub(crate) fn local(
        root: &Path,
        run: &Path,
        logs: &Path,
        mut file: File,
        host: &Host,
    ) -> Result<Alone> {
        file.nodule.pod_users.first.get_or_insert(FIRST_LOCAL_USER);
        file.kubelet.cgroup_root.get_or_insert_with(|| LOCAL_GROUP.into());
        // Images, pods and credentials are one user's.
        let verification = &mut file.kubelet.image_pull_credentials_verification_policy;
        verification.get_or_insert(Verification::NeverVerify);
        if !host.is_root {
            file.kubelet.cgroups_per_qos.get_or_insert(false);
        }
        let arguments = Arguments {
            run_dir: Some(run.to_owned()),
            pod_logs_dir: Some(logs.to_owned()),
            container_logs_dir: Some(root.join("containers")),
            healthz_port: Some(0),
            ..without_cluster(root)
        };
        let (name, addresses) = (name(&arguments, host)?, addresses(&arguments, host)?);
        Ok(Alone {
            images: images(&arguments, &file, host)?,
            pods: pods(&arguments, &file, host, &name, &addresses)?,
            log: log(&arguments, &file),
        })
    }
}

/// The settings of the images below a root directory, for commands.
pub(crate) fn images_of(root: &Path, file: &File, host: &Host) -> Result<nodule_image::Config> {
    images(&without_cluster(root), file, host)
}

fn without_cluster(root: &Path) -> Arguments {
    Arguments {
        root_dir: root.to_owned(),
        ..Arguments::parse_from(["nodule", "--kubeconfig=none"])
    }
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

fn name(arguments: &Arguments, host: &Host) -> Result<String> {
    let name = arguments.hostname_override.clone().unwrap_or_else(|| host.name.clone());
    let name = name.trim().to_lowercase();
    ensure!(
        values::is_subdomain(&name),
        "\"{name}\" is no node name: use --hostname-override with lower-case letters, digits, '-' and '.'"
    );
    Ok(name)
}

/// An unspecified address asks for one of its family.
fn addresses(arguments: &Arguments, host: &Host) -> Result<Vec<IpAddr>> {
    let asked = &arguments.node_ip;
    let families: Vec<_> = asked.iter().map(IpAddr::is_ipv4).collect();
    ensure!(
        matches!(families.as_slice(), [] | [_] | [true, false] | [false, true]),
        "--node-ip: use one address, or one of each family"
    );
    if asked.is_empty() {
        return Ok(host.addresses.first().copied().into_iter().collect());
    }
    asked.iter().map(|asked| specific(*asked, host)).collect()
}

fn specific(asked: IpAddr, host: &Host) -> Result<IpAddr> {
    if !asked.is_unspecified() {
        return Ok(asked);
    }
    let found = host.addresses.iter().find(|found| found.is_ipv4() == asked.is_ipv4());
    found
        .copied()
        .with_context(|| format!("--node-ip={asked}: this machine has no address of that family"))
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

fn pods(
    arguments: &Arguments,
    file: &File,
    host: &Host,
    name: &str,
    addresses: &[IpAddr],
) -> Result<nodule_pod::Config> {
    let (kubelet, nodule) = (&file.kubelet, &file.nodule);
    let size = kubelet
        .container_log_max_size
        .as_deref()
        .filter(|size| !size.is_empty())
        .unwrap_or(LOG_SIZE);
    let files = kubelet.container_log_max_files.unwrap_or(LOG_FILES);
    ensure!(files > 1, "field \"containerLogMaxFiles\": use 2 or more");
    let or = |path: Option<PathBuf>, default: &str| {
        path.unwrap_or_else(|| Path::new(default).to_owned())
    };
    let logs = or(first(&arguments.pod_logs_dir, &kubelet.pod_logs_dir), "/var/log/pods");
    let links = first(&arguments.container_logs_dir, &nodule.container_logs_dir);
    Ok(nodule_pod::Config {
        node: name.to_owned(),
        version: nodule_node::KUBELET_VERSION.to_owned(),
        addresses: addresses.iter().map(IpAddr::to_string).collect(),
        root: arguments.root_dir.clone(),
        run: or(first(&arguments.run_dir, &nodule.run_dir), "/run/nodule"),
        log_links: links.unwrap_or_else(|| logs.with_file_name("containers")),
        logs,
        sandbox: program(&nodule.sandbox_path, host, "nodule-sandbox"),
        start: match nodule.sandbox_start {
            SandboxStart::Fork => nodule_pod::Start::Fork,
            SandboxStart::Exec => nodule_pod::Start::Exec,
        },
        users: users(&nodule.pod_users, host)?,
        cgroups: cgroups(kubelet, host)?,
        memory: host.memory,
        privileged: host.is_root,
        may_mount: host.is_root,
        network: network::network(arguments, file)?,
        log_max_size: quantity::units(size).context("field \"containerLogMaxSize\"")?,
        log_max_files: files,
        shutdown: shutdown::groups(kubelet)?,
        sync: kubelet.sync_frequency.or(SYNC),
        requests: rates::requests(kubelet),
        events: rates::events(kubelet),
        longest_backoff: kubelet
            .crash_loop_back_off
            .max_container_restart_period
            .or(LONGEST_BACKOFF),
    })
}

/// The kubelet's `kubepods`, in the one place where cgroup v2 is mounted (file-hierarchy(7)).
fn cgroups(kubelet: &Kubelet, host: &Host) -> Result<Option<nodule_pod::Cgroups>> {
    if kubelet.cgroups_per_qos == Some(false) {
        return Ok(None);
    }
    let root = kubelet.cgroup_root.clone().unwrap_or_default();
    let root = root.strip_prefix("/").map(Path::to_owned).unwrap_or(root);
    Ok(Some(nodule_pod::Cgroups {
        mount: PathBuf::from("/sys/fs/cgroup"),
        root,
        cpus: host.cpus.saturating_mul(1000).saturating_sub(reserved(kubelet)?.cpu_millis),
        // As for the kubelet, less than 0 is no limit.
        pids: kubelet.pod_pids_limit.and_then(|limit| u64::try_from(limit).ok()),
    }))
}

/// Only root can make a process another user's.
fn users(pods: &PodUsers, host: &Host) -> Result<Option<RangeInclusive<u32>>> {
    let (first, count) = (pods.first.unwrap_or(FIRST_USER), pods.count.unwrap_or(USERS));
    let last = first.checked_add(count.saturating_sub(1)).filter(|last| *last <= LAST_USER);
    let last = last.filter(|_| count > 0 && first > 0).with_context(|| {
        format!("field \"podUsers\": use 1 or more users from 1 to {LAST_USER}")
    })?;
    Ok(host.is_root.then_some(first..=last))
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

fn node(
    arguments: &Arguments,
    file: &File,
    name: String,
    addresses: Vec<IpAddr>,
) -> Result<nodule_node::Config> {
    let (kubelet, labels) = (&file.kubelet, &file.nodule.labels);
    let arch = labels.arch.clone().unwrap_or_else(|| ARCH.to_owned());
    Ok(nodule_node::Config {
        hostname: name.clone(),
        name,
        addresses,
        port: 0,
        root: arguments.root_dir.clone(),
        os: labels.os.clone().unwrap_or_else(|| OS.to_owned()),
        taints: taints(arguments, kubelet, &arch)?,
        arch,
        wasi: WASI.to_owned(),
        labels: values::labels(arguments.node_labels.as_deref().unwrap_or_default())
            .context("--node-labels")?,
        provider_id: kubelet.provider_id.clone().filter(|id| !id.is_empty()),
        max_pods: arguments.max_pods.or(kubelet.max_pods).unwrap_or(MAX_PODS),
        reserved: reserved(kubelet)?,
        eviction: eviction::thresholds(kubelet)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        periods: periods(kubelet)?,
    })
}

/// Without others, those that keep ordinary pods away.
fn taints(arguments: &Arguments, kubelet: &Kubelet, arch: &str) -> Result<Vec<Taint>> {
    if let Some(text) = &arguments.register_with_taints {
        return values::taints(text).context("--register-with-taints");
    }
    if let Some(taints) = &kubelet.register_with_taints {
        taints.iter().try_for_each(values::check).context("field \"registerWithTaints\"")?;
        return Ok(taints.clone());
    }
    let taint = |effect: &str| Taint {
        key: "kubernetes.io/arch".to_owned(),
        value: Some(arch.to_owned()),
        effect: effect.to_owned(),
        ..Taint::default()
    };
    Ok(["NoSchedule", "NoExecute"].map(taint).to_vec())
}

fn reserved(kubelet: &Kubelet) -> Result<Reserved> {
    let kube = values::reserved(&kubelet.kube_reserved).context("field \"kubeReserved\"")?;
    let system = values::reserved(&kubelet.system_reserved).context("field \"systemReserved\"")?;
    Ok(Reserved {
        cpu_millis: kube.cpu_millis.saturating_add(system.cpu_millis),
        memory: kube.memory.saturating_add(system.memory),
        storage: kube.storage.saturating_add(system.storage),
    })
}

/// As for the kubelet, a status that is computed at a rate of its own is also sent at that rate.
fn periods(kubelet: &Kubelet) -> Result<Periods> {
    let default = Periods::default();
    let update = kubelet.node_status_update_frequency;
    let report = if update.is_set() { update.or(default.update) } else { default.report };
    let lease = match kubelet.node_lease_duration_seconds {
        None | Some(0) => default.lease,
        Some(seconds) => Duration::from_secs(seconds.into()),
    };
    ensure!(lease >= Duration::from_secs(4), "field \"nodeLeaseDurationSeconds\": use 4 or more");
    Ok(Periods {
        update: update.or(default.update),
        report: kubelet.node_status_report_frequency.or(report),
        lease,
        request: REQUEST.min(lease / 4),
        pressure: kubelet.eviction_pressure_transition_period.or(default.pressure),
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    const NODULE: &str = "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\n";

    fn settings(flags: &[&str], file: &str) -> Result<Settings> {
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
    fn links_to_logs_lie_beside_the_logs_unless_they_are_placed() {
        let links = |flags: &[&str], file: &str| settings(flags, file).unwrap().pods.log_links;
        assert_eq!(links(&["--pod-logs-dir=/t/pod-logs"], ""), Path::new("/t/containers"));
        let file =
            format!("{KUBELET}podLogsDir: /f/pods\n---\n{NODULE}containerLogsDir: /f/links\n");
        assert_eq!(links(&[], &file), Path::new("/f/links"));
        assert_eq!(links(&["--container-logs-dir=/t/links"], &file), Path::new("/t/links"));
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
    fn an_architecture_of_ones_own_is_the_taints_too() {
        let settings =
            settings(&[], &format!("{NODULE}labels:\n  arch: wasm32\n  os: wasip2\n")).unwrap();
        let value = settings.node.taints[0].value.clone();
        assert_eq!((settings.node.arch, value), ("wasm32".to_owned(), Some("wasm32".to_owned())));
    }

    #[test]
    fn no_taints_are_no_taints() {
        let file = format!("{KUBELET}registerWithTaints: []\n");
        assert!(settings(&[], &file).unwrap().node.taints.is_empty());
        assert!(settings(&["--register-with-taints="], "").unwrap().node.taints.is_empty());
    }

    #[test]
    fn reservations_are_summed() {
        let file = format!(
            "{KUBELET}kubeReserved:\n  cpu: 100m\nsystemReserved:\n  cpu: 200m\n  memory: 1Gi\n"
        );
        let expected = Reserved { cpu_millis: 300, memory: 1 << 30, storage: 0 };
        assert_eq!(settings(&[], &file).unwrap().node.reserved, expected);
    }

    #[test]
    fn a_status_frequency_is_also_the_reports() {
        for (fields, update, report) in [
            ("nodeStatusUpdateFrequency: 20s\n", 20, 20),
            ("nodeStatusReportFrequency: 1m\n", 10, 60),
            ("nodeStatusUpdateFrequency: 0s\nnodeStatusReportFrequency: 0s\n", 10, 300),
        ] {
            let periods = settings(&[], &format!("{KUBELET}{fields}")).unwrap().node.periods;
            assert_eq!(
                (periods.update.as_secs(), periods.report.as_secs()),
                (update, report),
                "{fields}"
            );
        }
    }

    #[test]
    fn images_are_pulled_side_by_side_unless_told_otherwise() {
        for (fields, pulls) in [
            ("", 4),
            ("serializeImagePulls: true\n", 1),
            ("maxParallelImagePulls: 9\n", 9),
            ("serializeImagePulls: false\nmaxParallelImagePulls: 2\n", 2),
        ] {
            assert_eq!(
                settings(&[], &format!("{KUBELET}{fields}")).unwrap().images.parallel_pulls,
                pulls,
                "{fields}"
            );
        }
    }

    #[test]
    fn mirrors_are_where_the_configuration_says() {
        let hosts = |fields: &str| {
            settings(&[], &format!("{NODULE}{fields}")).unwrap().images.hosts.unwrap()
        };
        assert_eq!(hosts(""), Path::new("/etc/nodule/certs.d"));
        let theirs = "/etc/containerd/certs.d";
        assert_eq!(hosts(&format!("registryConfigPath: {theirs}\n")), Path::new(theirs));
    }

    #[test]
    fn who_may_use_an_image_that_is_here_is_the_kubelets_to_say() {
        use nodule_image::Verification;
        let policy = |fields: &str| {
            settings(&[], &format!("{KUBELET}{fields}"))
                .map(|settings| settings.images.verification)
        };
        assert_eq!(policy("").unwrap(), Verification::NeverPreloaded);
        let field = "imagePullCredentialsVerificationPolicy:";
        assert_eq!(policy(&format!("{field} AlwaysVerify\n")).unwrap(), Verification::Always);
        let list = "preloadedImagesVerificationAllowlist: [\"r.io/*\"]\n";
        let allowed = policy(&format!("{field} NeverVerifyAllowlistedImages\n{list}")).unwrap();
        assert_eq!(allowed, Verification::NeverAllowed(vec!["r.io/*".to_owned()]));
        assert!(policy(list).is_err() && policy(&format!("{field} Sometimes\n")).is_err());
    }

    #[test]
    fn unused_images_are_removed_as_by_the_kubelet() {
        let collect = |fields: &str| {
            settings(&[], &format!("{KUBELET}{fields}")).map(|settings| settings.images.collect)
        };
        assert_eq!(collect("").unwrap(), nodule_image::Collect::default());
        let fields = "imageGCHighThresholdPercent: 70\nimageGCLowThresholdPercent: 60\n\
                      imageMinimumGCAge: 1m\nimageMaximumGCAge: 24h\n";
        let set = collect(fields).unwrap();
        assert_eq!((set.high, set.low, set.youngest), (70, 60, Duration::from_mins(1)));
        assert_eq!(set.oldest, Some(Duration::from_hours(24)));
        for (fields, word) in [
            ("imageGCHighThresholdPercent: 101\n", "100 or less"),
            ("imageGCHighThresholdPercent: 50\n", "is not below"),
            ("imageMaximumGCAge: 1m\n", "more than imageMinimumGCAge"),
        ] {
            let error = format!("{:#}", collect(fields).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn pods_have_cgroups_as_with_the_kubelet() {
        let cgroups =
            |fields: &str| settings(&[], &format!("{KUBELET}{fields}")).unwrap().pods.cgroups;
        let default = cgroups("kubeReserved: {cpu: 500m}\n").unwrap();
        assert_eq!((default.root, default.cpus, default.pids), (PathBuf::new(), 3500, None));
        let other = cgroups("cgroupRoot: /nodule.slice\npodPidsLimit: 100\n").unwrap();
        assert_eq!((other.root, other.pids), (PathBuf::from("nodule.slice"), Some(100)));
        assert_eq!(cgroups("podPidsLimit: -1\n").unwrap().pids, None);
        assert!(cgroups("cgroupsPerQOS: false\n").is_none());
    }

    #[test]
    fn pods_have_users_that_nobody_else_has() {
        let users =
            |fields: &str| settings(&[], &format!("{NODULE}{fields}")).map(|s| s.pods.users);
        assert_eq!(users("").unwrap(), Some(2_000_000_000..=2_000_999_999));
        assert_eq!(users("podUsers: {first: 5, count: 1}\n").unwrap(), Some(5..=5));
        for wrong in ["{first: 0}", "{count: 0}", "{first: 2147483647, count: 2}", "{first: -1}"] {
            let error = users(&format!("podUsers: {wrong}\n")).unwrap_err();
            assert!(format!("{error:#}").contains("podUsers"), "{error:#}");
        }
    }

    #[test]
    fn compilations_have_limits_and_a_user_of_their_own() {
        let compile =
            |fields: &str| settings(&[], &format!("{NODULE}{fields}")).map(|s| s.images.compile);
        let limits =
            compile("compile: {memory: 1Gi, timeout: 90s, output: 1500k, user: 7, parallel: 2}\n");
        let limits = limits.unwrap();
        assert_eq!((limits.memory_mib, limits.seconds, limits.output_mib), (1024, 90, 2));
        assert_eq!((limits.user, limits.parallel), (7, 2));
        assert_eq!(compile("").unwrap().user, 1_999_999_999);
        for (wrong, part) in [
            ("{memory: 1Mi}", "compile.memory\": use 16Mi or more"),
            ("{output: much}", "compile.output"),
            ("{user: 0}", "compile.user"),
            ("{user: 2000000001}", "compile.user\": use a user that is not of `podUsers`"),
            ("{parallel: 0}", "compile.parallel"),
        ] {
            let error = compile(&format!("compile: {wrong}\n")).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
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
    fn an_unspecified_address_is_any_of_its_family() {
        let addresses = settings(&["--node-ip=::,0.0.0.0"], "").unwrap().node.addresses;
        assert_eq!(
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            ["fd00::9", "10.0.0.9"]
        );
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
