//! What a pod's guests are told of the network: what they may not reach, and how they find names.
//!
//! The guests share the node's network. Their names are the node's, the cluster's or their own, as `dnsPolicy` and
//! `dnsConfig` say, and `hostAliases` come on top.

use std::net::IpAddr;
use std::path::PathBuf;
use std::{fs, io};

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};
use nodule_sandbox_proto::{self as proto, Block, Names, Net, Roots};

use crate::etc::{self, Etc, Identity};
use crate::events::Kind;
use crate::resolv;
use crate::worker::Worker;

/// The node's hosts file.
const HOSTS: &str = "/etc/hosts";

/// As many name servers as the C library asks.
const SERVERS: usize = 3;

/// Kubernetes' limit on a search list (`MaxDNSSearchPaths`).
const SEARCHES: usize = 32;

/// Kubernetes' limit on a search list's characters, spaces included (`MaxDNSSearchListChars`).
const SEARCH_CHARS: usize = 2048;

/// How many dots a name has that is no short name of the cluster's: the kubelet's.
const CLUSTER_NDOTS: u8 = 5;

/// The network that this node's pods have.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// What no pod may connect to, send to or bind.
    pub deny: Vec<Block>,
    /// The node's resolv.conf(5) (`resolvConf`); an empty path is a node without name servers.
    pub resolv_conf: PathBuf,
    /// The cluster's name servers (`clusterDNS`).
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain (`clusterDomain`).
    pub cluster_domain: String,
    /// Files of certificates in PEM that guests' outgoing HTTPS believes beside Mozilla's. Absolute; each is read when a
    /// container starts.
    pub roots: Vec<PathBuf>,
}

impl Worker {
    /// What the sandboxes of this pod are told; or what is wrong with the pod.
    pub(crate) fn net(&self) -> Result<Net, String> {
        let (network, pod) = (&self.host.config.network, &self.record.pod);
        let problem = |(path, error): (PathBuf, io::Error)| format!("{}: {error}", path.display());
        let node = network.node().map_err(problem)?;
        let (mut names, cut) = network.names(pod, node)?;
        names.hosts = resolv::hosts(&self.hosts()?);
        if cut {
            let message = format!(
                "Search Line limits or Nameserver limits were exceeded, some entries have been omitted, the applied lists are: {:?} {}",
                names.servers,
                names.search.join(" ")
            );
            self.host.events.say(pod, None, Kind::Warning, "DNSConfigForming", &message);
        }
        Ok(Net { deny: network.deny.clone(), names })
    }

    /// Who the pod is for its guests.
    pub(crate) fn identity(&self) -> Result<Identity, String> {
        let config = &self.host.config;
        Identity::of(&self.record.pod, &config.node, &config.network.cluster_domain)
    }

    /// The files of the guests' `/etc`.
    pub(crate) fn etc(&self, names: &Names) -> Result<Etc, String> {
        Ok(Etc::new(self.hosts()?, names, &self.identity()?))
    }

    /// The pod's hosts(5), by which names are looked up, too.
    fn hosts(&self) -> Result<String, String> {
        let spec = self.record.pod.spec.clone().unwrap_or_default();
        let path = PathBuf::from(HOSTS);
        let node = match spec.host_network {
            Some(true) => {
                read(&path).map_err(|(path, error)| format!("{}: {error}", path.display()))?
            }
            Some(false) | None => String::new(),
        };
        Ok(etc::hosts(&spec, &self.identity()?, &self.host.config.addresses, &node))
    }
}

impl Network {
    /// Whom a program of this kind believes: those of the node, and the pod's own. Modules of WASI 0.1 ask nobody.
    pub(crate) fn roots(&self, kind: proto::Kind, own: Vec<Roots>) -> Vec<Roots> {
        match kind {
            proto::Kind::Module => Vec::new(),
            proto::Kind::Component | proto::Kind::Proxy => {
                self.roots.iter().cloned().map(Roots::File).chain(own).collect()
            }
        }
    }

    /// What the node itself has, read anew for each container.
    fn node(&self) -> Result<Names, (PathBuf, io::Error)> {
        let mut names = Names::default();
        if !self.resolv_conf.as_os_str().is_empty() {
            names = resolv::resolv(&read(&self.resolv_conf)?);
            if names.servers.is_empty() {
                // resolv.conf(5): then it is the one of this machine.
                names.servers.extend(resolv::server("127.0.0.1"));
            }
        }
        Ok(names)
    }

    /// The pod's names, and whether they were too many.
    fn names(&self, pod: &Pod, node: Names) -> Result<(Names, bool), String> {
        let spec = pod.spec.clone().unwrap_or_default();
        let mut names = match policy(&spec) {
            "None" => Names::default(),
            "ClusterFirst" if !self.cluster_dns.is_empty() => {
                self.cluster(pod.metadata.namespace.as_deref().unwrap_or_default(), node)
            }
            _ => node,
        };
        if let Some(config) = &spec.dns_config {
            self.merge(&mut names, config)?;
        }
        check(&spec)?;
        let cut = cut(&mut names);
        Ok((names, cut))
    }

    /// The cluster's servers, its search list before the node's, and no option of the node's.
    fn cluster(&self, namespace: &str, node: Names) -> Names {
        let domain = &self.cluster_domain;
        let mut search = Vec::new();
        if !domain.is_empty() {
            search.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}")]);
            search.push(domain.clone());
        }
        extend(&mut search, node.search);
        let servers = self.cluster_dns.iter().filter_map(|ip| resolv::server(&ip.to_string()));
        let servers = servers.collect();
        Names { servers, search, ndots: CLUSTER_NDOTS, ..Names::default() }
    }

    fn merge(&self, names: &mut Names, config: &PodDNSConfig) -> Result<(), String> {
        for text in config.nameservers.iter().flatten() {
            let server = resolv::server(text)
                .ok_or_else(|| format!("dnsConfig.nameservers: \"{text}\" is no address"))?;
            // The sandbox asks a server whatever the guest may reach: the node's own is not the pod's choice.
            if self.deny.iter().any(|block| block.holds(server)) {
                return Err(format!("dnsConfig.nameservers: {text} is denied to this node's pods"));
            }
            extend(&mut names.servers, [server]);
        }
        extend(&mut names.search, config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            resolv::option(names, name, option.value.as_deref().unwrap_or_default());
        }
        Ok(())
    }
}

/// The policy that counts: a pod that says that it is in the node's network gets the node's names, as from the kubelet.
fn policy(spec: &PodSpec) -> &str {
    match spec.dns_policy.as_deref() {
        Some("ClusterFirst") | None if spec.host_network == Some(true) => "Default",
        Some("ClusterFirstWithHostNet" | "ClusterFirst") | None => "ClusterFirst",
        Some(policy) => policy,
    }
}

/// Whether the addresses of the pod's aliases are some.
fn check(spec: &PodSpec) -> Result<(), String> {
    let mut addresses = spec.host_aliases.iter().flatten().map(|alias| &alias.ip);
    match addresses.find(|ip| ip.parse::<IpAddr>().is_err()) {
        Some(ip) => Err(format!("hostAliases: \"{ip}\" is no address")),
        None => Ok(()),
    }
}

/// Appends what is not there yet.
fn extend<T: PartialEq>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// Keeps to the limits; true if something had to go.
fn cut(names: &mut Names) -> bool {
    let (servers, searches) = (names.servers.len(), names.search.len());
    names.servers.truncate(SERVERS);
    names.search.truncate(SEARCHES);
    while names.search.join(" ").len() > SEARCH_CHARS {
        names.search.pop();
    }
    (servers, searches) != (names.servers.len(), names.search.len())
}

/// A file that need not be there.
fn read(path: &PathBuf) -> Result<String, (PathBuf, io::Error)> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err((path.clone(), error)),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodDNSConfigOption;

    use super::*;

    fn network() -> Network {
        Network {
            deny: vec!["169.254.169.254/32".parse().unwrap()],
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            ..Network::default()
        }
    }

    #[test]
    fn components_believe_the_nodes_roots_and_their_own_and_modules_ask_nobody() {
        let network = Network { roots: vec!["/ca.pem".into()], ..network() };
        let own = || vec![Roots::Pem("own".into())];
        let all = vec![Roots::File("/ca.pem".into()), Roots::Pem("own".into())];
        assert_eq!(network.roots(proto::Kind::Component, own()), all);
        assert_eq!(network.roots(proto::Kind::Proxy, own()), all);
        assert_eq!(network.roots(proto::Kind::Module, own()), []);
    }

    fn node() -> Names {
        resolv::resolv("nameserver 192.0.2.1\nsearch lan\noptions timeout:2\n")
    }

    fn names(network: &Network, spec: PodSpec) -> Result<(Names, bool), String> {
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.namespace = Some("shop".into());
        network.names(&pod, node())
    }

    fn policy(policy: &str) -> PodSpec {
        PodSpec { dns_policy: Some(policy.into()), ..PodSpec::default() }
    }

    fn servers(names: &Names) -> Vec<String> {
        names.servers.iter().map(|server| server.ip().to_string()).collect()
    }

    #[test]
    fn the_policy_says_whose_names_a_pod_has() {
        let host = PodSpec { host_network: Some(true), ..PodSpec::default() };
        let (cluster, own) = (["10.96.0.10"], ["192.0.2.1"]);
        let none: [&str; 0] = [];
        for (spec, expected) in [
            (PodSpec::default(), &cluster[..]),
            (policy("ClusterFirst"), &cluster),
            (policy("ClusterFirstWithHostNet"), &cluster),
            (policy("Default"), &own),
            (host.clone(), &own),
            (PodSpec { host_network: Some(true), ..policy("ClusterFirstWithHostNet") }, &cluster),
            (policy("None"), &none),
        ] {
            let (names, cut) = names(&network(), spec.clone()).unwrap();
            assert_eq!(servers(&names), expected, "{:?}", spec.dns_policy);
            assert!(!cut);
        }
        let without = Network { cluster_dns: Vec::new(), ..network() };
        let (names, _) = names(&without, policy("ClusterFirst")).unwrap();
        assert_eq!(names, node());
    }

    #[test]
    fn the_clusters_names_are_completed_before_the_nodes() {
        let (names, _) = names(&network(), PodSpec::default()).unwrap();
        let search = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"];
        assert_eq!(
            (names.search, names.ndots, names.timeout),
            (search.map(Into::into).into(), 5, 5)
        );
    }

    #[test]
    fn the_pods_own_configuration_is_merged() {
        let option = |name: &str, value: Option<&str>| PodDNSConfigOption {
            name: Some(name.into()),
            value: value.map(Into::into),
        };
        let config = PodDNSConfig {
            nameservers: Some(["10.96.0.10", "192.0.2.7"].map(Into::into).into()),
            searches: Some(["own", "lan"].map(Into::into).into()),
            options: Some(vec![option("ndots", Some("2")), option("rotate", None)]),
        };
        let spec = PodSpec { dns_config: Some(config), ..PodSpec::default() };
        let (names, _) = names(&network(), spec).unwrap();
        assert_eq!(servers(&names), ["10.96.0.10", "192.0.2.7"]);
        assert_eq!(names.search.last().unwrap(), "own");
        assert_eq!((names.ndots, names.rotate), (2, true));
    }

    #[test]
    fn a_server_of_the_pods_choice_is_checked() {
        for (server, words) in [("169.254.169.254", "is denied"), ("dns", "is no address")] {
            let config =
                PodDNSConfig { nameservers: Some(vec![server.into()]), ..PodDNSConfig::default() };
            let spec = PodSpec { dns_config: Some(config), ..policy("None") };
            let error = names(&network(), spec).unwrap_err();
            assert!(error.contains(server) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn too_many_are_cut() {
        let list =
            |count: usize, text: &str| Some((0..count).map(|n| format!("{text}{n}")).collect());
        for (servers, searches, text, cut) in [
            (2, 28, "s", false),
            (3, 0, "s", true),
            (0, 29, "s", true),
            (0, 28, &"long".repeat(20), true),
        ] {
            let config = PodDNSConfig {
                nameservers: list(servers, "10.0.0."),
                searches: list(searches, text),
                options: None,
            };
            let spec = PodSpec { dns_config: Some(config), ..PodSpec::default() };
            assert_eq!(names(&network(), spec).unwrap().1, cut, "{servers} {searches}");
        }
    }
}
