use std::path::Path;

use anyhow::{Context, Result};
use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{config::Rates, rate::limited};

/// Makes connections to the API server: each client has connections of its own.
pub(crate) struct Clients {
    config: Config,
}

impl Clients {
    /// Reads a kubeconfig: client certificates, tokens and exec plugins, as kube knows them.
    pub(crate) async fn read(path: &Path) -> Result<Self> {
        let place = || format!("kubeconfig {}", path.display());
        let kubeconfig = Kubeconfig::read_from(path).with_context(place)?;
        let options = KubeConfigOptions::default();
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(place)?;
        // The tasks have back-offs that fit them. The client's own waits minutes behind an API server that starts.
        config.default_retry = false;
        let agent = HeaderValue::from_static(concat!("nodule/", env!("CARGO_PKG_VERSION")));
        config.headers.push((USER_AGENT, agent));
        Ok(Self { config })
    }

    /// For the node and for all else. The heartbeat waits for no turn; the others' requests and Events each have a rate.
    pub(crate) fn connect(
        &self,
        rates: Rates,
    ) -> Result<(nodule_node::Clients, nodule_pod::Clients)> {
        let pods = limited(self.client()?, rates.requests);
        let events = limited(self.client()?, rates.events);
        let (node, lease) = (self.client()?, self.client()?);
        let node = nodule_node::Clients { node, lease, events: events.clone() };
        Ok((node, nodule_pod::Clients { pods, events }))
    }

    fn client(&self) -> Result<Client> {
        Client::try_from(self.config.clone()).context("make a client of the API server")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_read_is_named() {
        let error = Clients::read(Path::new("/no/such/kubeconfig")).await.err().unwrap();
        assert!(error.to_string().contains("/no/such/kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_names_server_and_user() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: 'https://127.0.0.1:6443'}}]
users: [{name: u, user: {token: secret}}]
";
        std::fs::write(file.path(), text).unwrap();
        let clients = Clients::read(file.path()).await.unwrap();
        assert_eq!(clients.config.cluster_url.to_string(), "https://127.0.0.1:6443/");
        assert!(clients.config.auth_info.token.is_some());
    }
}
