//! What the tests stand on.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::config::Kubeconfig;
use nodule_e2e::cluster::Cluster;
use nodule_e2e::credentials::Credentials;
use nodule_e2e::layout::Layout;
use nodule_e2e::{access, kubeconfig};

#[tokio::test]
async fn a_cluster_ends_with_whoever_started_it_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::own().await?;
    let folder = cluster.folder().to_owned();
    let state = Layout::new(folder.join("control-plane")).state().context("it runs")?;
    let port = ("127.0.0.1", state.ports.api);
    assert!(std::net::TcpStream::connect(port).is_ok());
    drop(cluster);
    assert!(state.supervisor.wait(Duration::from_secs(30))?, "the supervisor still runs");
    assert!(std::net::TcpStream::connect(port).is_err(), "the API server still runs");
    assert!(!folder.exists(), "{} is left", folder.display());
    Ok(())
}

#[tokio::test]
async fn a_stopped_api_server_comes_back_with_what_it_knew() -> Result<()> {
    let cluster = Cluster::own().await?;
    cluster.kubectl().run(&["create", "namespace", "kept"])?;
    cluster.stop("kube-apiserver")?;
    assert!(cluster.kubectl().run(&["get", "namespaces"]).is_err());
    cluster.start_again("kube-apiserver")?;
    assert!(cluster.kubectl().run(&["get", "namespaces"])?.contains("kept"));
    Ok(())
}

#[tokio::test]
async fn a_foreign_cluster_signs_a_nodes_certificates() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let admin = Kubeconfig::read_from(cluster.kubeconfig())?;
    let node = format!("asks-{}", std::process::id());
    let credentials = Credentials::request(&admin, &node).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kubeconfig");
    kubeconfig::write(&path, &cluster.server()?, &credentials.authority, &credentials.client)?;
    let client = access::client(&path).await?;
    let found = Api::<Node>::all(client.clone()).get_opt(&node).await?;
    assert!(found.is_none(), "it may look for itself, and is not there yet");
    let others = Api::<Pod>::all(client).list(&kube::api::ListParams::default()).await;
    assert!(
        matches!(others, Err(kube::Error::Api(status)) if status.code == 403),
        "and is a node, not more"
    );
    Ok(())
}
