use std::{net::IpAddr, path::PathBuf};

use clap::{Parser, ValueEnum};

/// What the same program does without a cluster.
const ALONE: &str = "Without a cluster: nodule run POD.yaml, and nodule ps, logs, stop, rm; see nodule run --help. Images: see nodule image --help.";

/// A Kubernetes node agent that runs WebAssembly.
///
/// The flags are the kubelet's. A flag wins over the same setting in the configuration file.
#[derive(Debug, Parser)]
#[command(name = "nodule", after_help = ALONE, version = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36)"))]
pub(crate) struct Arguments {
    /// How to reach the API server, and as whom.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,

    /// A KubeletConfiguration, and after `---` a NoduleConfiguration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The node's addresses: one, or one of each family, the primary one first.
    /// [default: that of the interface of the default route]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,

    /// The node's name instead of the machine's.
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,

    /// Labels that the node is registered with.
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub(crate) node_labels: Option<String>,

    /// Taints that the node is registered with, instead of its own for wasm32-wasi.
    #[arg(long, value_name = "KEY=VALUE:EFFECT,...")]
    pub(crate) register_with_taints: Option<String>,

    /// Where images and pods are kept.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/nodule")]
    pub(crate) root_dir: PathBuf,

    /// Where sockets are. [default: /run/nodule]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) run_dir: Option<PathBuf>,

    /// Where the logs of pods are. [default: /var/log/pods]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) pod_logs_dir: Option<PathBuf>,

    /// Where log collectors find links to the logs of pods. [default: containers, beside the logs of pods]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) container_logs_dir: Option<PathBuf>,

    /// The port of the node's HTTPS API; 0 takes a free one. [default: 10250]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// The address of the node's HTTPS API. [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,

    /// The serving certificate of the node's HTTPS API.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// Its private key.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_private_key_file: Option<PathBuf>,

    /// The authorities of client certificates.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,

    /// The port of /healthz; 0 switches it off. [default: 10248]
    #[arg(long, value_name = "PORT")]
    pub(crate) healthz_port: Option<u16>,

    /// The address of /healthz. [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(crate) healthz_bind_address: Option<IpAddr>,

    /// Which programs know credentials for images: a CredentialProviderConfig, or a folder of them.
    #[arg(long, value_name = "FILE")]
    pub(crate) image_credential_provider_config: Option<PathBuf>,

    /// Where these programs are.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,

    /// How many pods the node takes. [default: 110]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_pods: Option<u32>,

    /// The form of the agent's own log. [default: human]
    #[arg(long, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,

    /// The same, in the kubelet's words.
    #[arg(long, value_name = "FORM", conflicts_with = "log_format")]
    pub(crate) logging_format: Option<LoggingFormat>,

    /// How much is logged: 0 to 3 is the ordinary, from 4 on every step, from 6 on everything.
    #[arg(short = 'v', long = "v", value_name = "LEVEL")]
    pub(crate) verbosity: Option<u8>,
}

/// The form of the agent's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Human,
    /// A JSON object a line.
    Json,
}

/// [`LogFormat`] in the kubelet's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoggingFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Arguments {
    /// Whichever of the two flags was given.
    pub(crate) fn format(&self) -> Option<LogFormat> {
        let kubelets = self.logging_format.map(|format| match format {
            LoggingFormat::Text => LogFormat::Human,
            LoggingFormat::Json => LogFormat::Json,
        });
        self.log_format.or(kubelets)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(flags: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["nodule", "--kubeconfig=k"].iter().chain(flags))
    }

    #[test]
    fn the_flags_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_unknown_flag_is_refused_with_the_nearest_known_one() {
        let error = parse(&["--node-label=a=b"]).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::UnknownArgument, 2));
        assert!(error.to_string().contains("--node-labels"), "{error}");
    }

    #[test]
    fn the_version_names_the_kubernetes_version_that_is_kept() {
        let error = parse(&["--version"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
        let expected = format!("nodule {} (Kubernetes v1.36)\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_kubelets_words_for_the_log_are_understood() {
        let table = [
            (vec![], None),
            (vec!["--log-format=json"], Some(LogFormat::Json)),
            (vec!["--logging-format=text"], Some(LogFormat::Human)),
            (vec!["--logging-format=json"], Some(LogFormat::Json)),
        ];
        for (flags, expected) in table {
            assert_eq!(parse(&flags).unwrap().format(), expected, "{flags:?}");
        }
    }

    #[test]
    fn verbosity_is_given_as_the_kubelets() {
        for flags in [vec!["-v", "4"], vec!["-v4"], vec!["--v=4"]] {
            assert_eq!(parse(&flags).unwrap().verbosity, Some(4), "{flags:?}");
        }
    }

    #[test]
    fn a_node_may_have_an_address_of_each_family() {
        let addresses = parse(&["--node-ip=10.0.0.1,fd00::1"]).unwrap().node_ip;
        assert_eq!(addresses.len(), 2);
    }
}
