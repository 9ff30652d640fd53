//! Many pods at once.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use nodule_e2e::agent::Options;
use nodule_e2e::{test, wait};
use serde_json::json;

const PODS: i32 = 200;
/// Renewals are 10 s apart; the cluster takes a node for lost after 40 s without one.
const LATE: SignedDuration = SignedDuration::from_secs(20);
/// The agent's own memory, without its pods' processes and without its code.
const MEMORY: u64 = 40_000_000;

#[tokio::test]
async fn two_hundred_pods_run_and_the_lease_is_never_late() -> Result<()> {
    let options = Options { max_pods: 250, alone: true, ..Options::default() };
    test::run_with(&options, async |test| {
        let spec = json!({
            "replicas": PODS,
            "selector": { "matchLabels": { "app": "it" } },
            "template": {
                "metadata": { "labels": { "app": "it" } },
                "spec": test.spec(&["lines", "0", "10000"]),
            },
        });
        test.create::<Deployment>(json!({ "metadata": { "name": "many" }, "spec": spec })).await?;
        let available = |found: &[Deployment]| {
            found.iter().any(|one| {
                one.status.as_ref().and_then(|status| status.available_replicas) == Some(PODS)
            })
        };
        let what = format!("{PODS} available replicas");
        let run = wait::until_within(
            Duration::from_secs(600),
            test.api(),
            wait::named("many"),
            &what,
            available,
        );
        let leases: Api<Lease> = Api::namespaced(test.client.clone(), "kube-node-lease");
        tokio::select! {
            run = run => drop(run?),
            late = lateness(leases, test.agent.name()) => late?,
        }
        assert_eq!(test.agent.sandboxes().len(), usize::try_from(PODS)?);
        let memory = test.agent.memory()?;
        assert!(memory < MEMORY, "the agent has {memory} bytes");
        Ok(())
    })
    .await
}

/// Ends only with an error: when a renewal came too late.
async fn lateness(leases: Api<Lease>, node: &str) -> Result<()> {
    let mut changes = pin!(watcher(leases, wait::named(node)).applied_objects().default_backoff());
    let mut last: Option<Timestamp> = None;
    while let Some(lease) = changes.try_next().await? {
        let Some(renewed) = lease.spec.and_then(|spec| spec.renew_time) else { continue };
        let gap = last.map(|last| renewed.0.duration_since(last)).unwrap_or_default();
        ensure!(gap < LATE, "{} s between two renewals", gap.as_secs());
        last = Some(renewed.0);
    }
    Ok(())
}
