//! What idle pods ask of their agent, up to a thousand of them.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::serve::cpu;
use super::table::Table;
use crate::agent::Options;
use crate::terminal::answer;
use crate::test::{self, Test};
use crate::wait;

const NAME: &str = "crowd";
/// How many pods at each step.
const STEPS: [i32; 3] = [1, 100, 1000];
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long the node is left in peace, and then watched.
const REST: Duration = Duration::from_secs(30);

/// Measures and prints a table.
pub async fn run() -> Result<()> {
    let options = Options { alone: true, max_pods: 1100, ..Options::default() };
    test::run_with(&options, async |test| {
        begin(test).await?;
        let head =
            ["", "available after, s", "own memory, MB", "with its code, MB", "processor, %"];
        let mut table = Table::new("An agent with idle pods", &head);
        for pods in STEPS {
            table.row(step(test, pods).await?);
        }
        answer(table.text());
        answer(table.markdown());
        Ok(())
    })
    .await
}

async fn begin(test: &Test<'_>) -> Result<()> {
    let spec = json!({
        "replicas": 0,
        "selector": { "matchLabels": { "app": NAME } },
        "template": {
            "metadata": { "labels": { "app": NAME } },
            "spec": test.spec(&["lines", "0", "86400000"]),
        },
    });
    test.create::<Deployment>(json!({ "metadata": { "name": NAME }, "spec": spec })).await?;
    Ok(())
}

/// One row: so many pods in all.
async fn step(test: &Test<'_>, pods: i32) -> Result<Vec<String>> {
    let before = Timestamp::now();
    scale(test, pods).await?;
    let took = Timestamp::now().duration_since(before).as_secs_f64();
    // What comes after the start, as the last Events, is not idling.
    tokio::time::sleep(REST).await;
    let used = cpu(test.agent.pid()?)?;
    tokio::time::sleep(REST).await;
    let idle = (cpu(test.agent.pid()?)? - used) / REST.as_secs_f64();
    let megabytes = |bytes: u64| format!("{}", bytes / 1_000_000);
    let [own, all] = [test.agent.memory()?, test.agent.resident()?].map(megabytes);
    Ok(vec![format!("{pods} pods"), format!("{took:.1}"), own, all, format!("{:.2}", idle * 100.0)])
}

/// Waits until that many are available.
async fn scale(test: &Test<'_>, pods: i32) -> Result<()> {
    let deployments: Api<Deployment> = test.api();
    let replicas = Patch::Merge(json!({ "spec": { "replicas": pods } }));
    deployments.patch(NAME, &PatchParams::default(), &replicas).await?;
    let all = |found: &[Deployment]| {
        let status = found.first().and_then(|one| one.status.as_ref());
        status.and_then(|status| status.available_replicas) == Some(pods)
    };
    let what = format!("{pods} available replicas");
    wait::until_within(PATIENCE, deployments, wait::named(NAME), &what, all).await.context(what)?;
    Ok(())
}
