//! The API server goes away for a minute.

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use nodule_e2e::agent::Options;
use nodule_e2e::cluster::Cluster;
use nodule_e2e::{status, test, wait};
use serde_json::json;
use std::time::Duration;

/// The most lines that the agent may say about a minute without API server.
const LINES: usize = 100;
/// How soon after it is back the node is to be Ready.
const BACK: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_minute_without_api_server_loses_nothing() -> Result<()> {
    let cluster = Cluster::own().await?;
    test::run_on(&cluster, &Options { alone: true, ..Options::default() }, async |test| {
        test.pod("stays", test.spec(&["lines", "0", "1000"])).await?;
        test.pod_until("stays", "to run", |pod| status::running(pod).is_some()).await?;
        let known = test.agent.sandboxes();
        // Its end is the end of the outage.
        let mut spec = test.spec(&["lines", "60", "1000"]);
        spec["restartPolicy"] = json!("Never");
        test.pod("minute", spec).await?;
        test.pod_until("minute", "to run", |pod| status::running(pod).is_some()).await?;
        let mut processes = test.agent.sandboxes();
        processes.retain(|process| !known.contains(process));
        let minute = processes.first().context("the process of the pod that lasts a minute")?;
        let said = test.agent.log().lines().count();

        cluster.stop("kube-apiserver")?;
        assert!(minute.wait(Duration::from_secs(120))?, "it ends without an API server");
        cluster.start_again("kube-apiserver")?;
        let back = Timestamp::now();

        let leases: Api<Lease> = Api::namespaced(test.client.clone(), "kube-node-lease");
        let renewed = |found: &[Lease]| {
            let times = found.iter().filter_map(|lease| lease.spec.as_ref()?.renew_time.clone());
            times.into_iter().any(|time| time.0 > back)
        };
        wait::until_within(
            BACK,
            leases,
            wait::named(test.agent.name()),
            "the lease to be renewed",
            renewed,
        )
        .await?;
        let ready = |found: &[Node]| {
            found.iter().any(|node| status::node_condition(node, "Ready") == "True")
        };
        let nodes: Api<Node> = Api::all(test.client.clone());
        wait::until_within(
            BACK,
            nodes,
            wait::named(test.agent.name()),
            "the node to be Ready",
            ready,
        )
        .await?;
        let ended = test
            .pod_until("minute", "to have succeeded", |pod| status::phase(pod) == "Succeeded")
            .await?;
        assert_eq!(status::terminated(&ended).map(|ended| ended.exit_code), Some(0));
        assert_eq!(test.kubectl(&["logs", "minute"])?.lines().count(), 60);
        let stays = test.pod_until("stays", "to be ready", status::is_ready).await?;
        assert_eq!(status::restarts(&stays), 0);
        let lines = test.agent.log().lines().count() - said;
        assert!(lines < LINES, "the agent said {lines} lines");
        Ok(())
    })
    .await
}
