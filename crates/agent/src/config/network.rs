//! The network that pods have: the node's own, but for what they may not reach.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nodule_pod::{Block, Network};

use super::File;
use crate::cli::Arguments;

/// Where the node's name servers are said.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What no pod should reach by sharing the node's network, unless an operator says otherwise: SECURITY.md has the reasons.
const DENIED: &[&str] = &[
    // Metadata of clouds, with the machine's credentials: AWS, Google, Azure, OpenStack and most others; then AWS,
    // Google by IPv6; Alibaba; Oracle's older address; Azure's host agent, which serves names on another port.
    "169.254.169.254/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "168.63.129.16/32:80",
    "168.63.129.16/32:32526",
    // Credentials of AWS container tasks.
    "169.254.170.2/32",
    // The ports of a node's and a control plane's parts, which trust whoever is on the machine; etcd's among them.
    "127.0.0.0/8:10248-10259",
    "::1/128:10248-10259",
    "127.0.0.0/8:2379-2381",
    "::1/128:2379-2381",
];

pub(super) fn network(arguments: &Arguments, file: &File) -> Result<Network> {
    let (kubelet, wanted) = (&file.kubelet, &file.nodule.network);
    let parse = |text: &str| text.parse::<Block>().context("field \"network.deny\"");
    let mut deny = wanted.deny.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    if wanted.deny_defaults != Some(false) {
        for text in DENIED {
            deny.push(parse(text)?);
        }
        deny.extend(super::health(arguments, file).map(Block::one));
    }
    let roots = wanted.root_certificates.clone();
    if let Some(relative) = roots.iter().find(|path| !path.is_absolute()) {
        bail!(
            "field \"network.rootCertificates\": {} is no absolute path: write the whole one",
            relative.display()
        );
    }
    Ok(Network {
        roots,
        deny,
        resolv_conf: kubelet.resolv_conf.clone().unwrap_or_else(|| PathBuf::from(RESOLV_CONF)),
        cluster_dns: kubelet.cluster_dns.clone(),
        cluster_domain: kubelet.cluster_domain.trim_matches('.').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    const NODULE: &str = "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\n";

    fn read(text: &str) -> Result<Network> {
        network(&Arguments::try_parse_from(["nodule", "--kubeconfig", "k"])?, &File::parse(text)?)
    }

    fn denied(network: &Network, address: &str) -> bool {
        network.deny.iter().any(|block| block.holds(address.parse().unwrap()))
    }

    #[test]
    fn by_default_no_pod_reaches_credentials_or_the_nodes_own_ports() {
        let network = read("").unwrap();
        for address in ["169.254.169.254:80", "127.0.0.1:10248", "[::1]:10250", "127.0.0.1:2381"] {
            assert!(denied(&network, address), "{address}");
        }
        for address in ["127.0.0.1:8080", "[::1]:53", "168.63.129.16:53", "10.0.0.1:10250"] {
            assert!(!denied(&network, address), "{address}");
        }
        assert_eq!(network.resolv_conf, PathBuf::from("/etc/resolv.conf"));
    }

    #[test]
    fn what_is_configured_comes_on_top_or_alone() {
        let deny = format!("{NODULE}network:\n  deny:\n  - 10.0.0.0/8\n");
        let network = read(&deny).unwrap();
        assert!(denied(&network, "10.1.1.1:80") && denied(&network, "169.254.169.254:80"));
        let network = read(&format!("{deny}  denyDefaults: false\n")).unwrap();
        assert_eq!(network.deny, ["10.0.0.0/8".parse().unwrap()]);
        let error = read(&format!("{NODULE}network:\n  deny: [example.com]\n")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("\"network.deny\"") && error.contains("example.com"), "{error}");
    }

    #[test]
    fn roots_are_files_with_whole_paths() {
        let roots = |list: &str| read(&format!("{NODULE}network:\n  rootCertificates: {list}\n"));
        assert_eq!(roots("[/etc/ca.pem]").unwrap().roots, [PathBuf::from("/etc/ca.pem")]);
        let error = format!("{:#}", roots("[ca.pem]").unwrap_err());
        assert!(error.contains("network.rootCertificates") && error.contains("ca.pem"), "{error}");
    }

    #[test]
    fn a_health_port_of_ones_own_is_denied_too() {
        let network =
            read(&format!("{KUBELET}healthzPort: 7\nhealthzBindAddress: 127.0.0.5\n")).unwrap();
        assert!(denied(&network, "127.0.0.5:7") && !denied(&network, "127.0.0.1:7"));
    }

    #[test]
    fn names_are_as_the_kubelet_is_told() {
        let text = format!(
            "{KUBELET}resolvConf: \"\"\nclusterDNS:\n- 10.96.0.10\nclusterDomain: cluster.local.\n"
        );
        let network = read(&text).unwrap();
        assert_eq!(network.resolv_conf, PathBuf::new());
        assert_eq!(network.cluster_dns, ["10.96.0.10".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(network.cluster_domain, "cluster.local");
    }
}
