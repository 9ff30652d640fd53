//! A node that is emptied for maintenance, as who does it sees it.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use nodule_e2e::agent::{Agent, Options};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::{Value, json};

/// The label of the test's two nodes.
const LABEL: &str = "nodule.dev/drain";

#[tokio::test]
async fn a_drain_keeps_to_the_disruption_budget_and_leaves_daemon_sets() -> Result<()> {
    test::run(async |test| {
        let (old, new) = (test.agent.name().to_owned(), format!("{}-new", test.namespace));
        let client = test.client.clone();
        let _other = Agent::start(test.cluster, client, &new, &Options::default()).await?;
        test.kubectl(&["label", "node", &old, &new, &format!("{LABEL}={}", test.namespace)])?;
        test.kubectl(&["cordon", &new])?;
        let daemon = deploy(test).await?;
        test.kubectl(&["uncordon", &new])?;

        let refused = test.kubectl(&["drain", &old]).err().context("it was drained")?.to_string();
        ensure!(refused.contains("cannot delete DaemonSet-managed Pods"), "{refused}");
        let drain = drain(test, &old)?;
        let least = moved(test, &old).await?;
        let said = drain.wait_with_output()?;
        let (said, complaints) =
            (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        ensure!(said.contains(&format!("node/{old} drained")), "{said}{complaints}");
        assert_eq!(least, 2, "pods that were healthy at one time");

        let left = test.api::<Pod>().get(&daemon.name_any()).await?;
        ensure!(left.uid() == daemon.uid() && status::is_ready(&left), "the daemon was touched");
        comes_back(test, &old).await
    })
    .await
}

/// Three ready pods, of which one may be missing, and a daemon, all on the test's first node. Gives back the daemon.
async fn deploy(test: &Test<'_>) -> Result<Pod> {
    let server = test.cluster.server()?;
    let (_, port) = server.rsplit_once(':').context("the API server's port")?;
    let port: u16 = port.trim_end_matches('/').parse()?;
    let mut spec = test.spec(&["lines", "0", "1000"]);
    spec["nodeSelector"] = json!({ LABEL: test.namespace });
    test.create::<DaemonSet>(object("daemon", json!({}), &spec)).await?;
    spec["containers"][0]["readinessProbe"] = json!({
        "tcpSocket": { "port": port, "host": "127.0.0.1" },
        "initialDelaySeconds": 1, "periodSeconds": 1, "timeoutSeconds": 30,
    });
    test.create::<Deployment>(object("web", json!({ "replicas": 3 }), &spec)).await?;
    test.create::<PodDisruptionBudget>(json!({ "metadata": { "name": "web" }, "spec": {
        "minAvailable": 2, "selector": { "matchLabels": { "app": "web" } } } }))
        .await?;
    test.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=180s"])?;
    let allows = |found: &[PodDisruptionBudget]| {
        let status = found.first().and_then(|budget| budget.status.as_ref());
        status.is_some_and(|status| {
            (status.current_healthy, status.disruptions_allowed) == (Some(3), Some(1))
        })
    };
    wait::until(test.api(), wait::named("web"), "a budget that allows one", allows).await?;
    let here = |pod: &Pod| on(pod, test.agent.name()) && status::is_ready(pod);
    let daemons =
        test.pods_until("app=daemon", "a ready daemon", |pods| pods.iter().any(here)).await?;
    daemons.into_iter().find(here).context("the daemon")
}

fn object(name: &str, mut more: Value, spec: &Value) -> Value {
    let labels = json!({ "app": name });
    more["selector"] = json!({ "matchLabels": labels });
    more["template"] = json!({ "metadata": { "labels": labels }, "spec": spec });
    json!({ "metadata": { "name": name }, "spec": more })
}

fn on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn drain(test: &Test<'_>, node: &str) -> Result<Child> {
    let arguments = ["drain", node, "--ignore-daemonsets", "--timeout=170s"];
    let mut command = test.cluster.kubectl().command(&arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")
}

/// Waits until the pods are all elsewhere, and tells how many were healthy at least.
async fn moved(test: &Test<'_>, node: &str) -> Result<usize> {
    let (mut least, mut seen) = (usize::MAX, BTreeSet::new());
    let gone = |pods: &[Pod]| {
        let healthy =
            |pod: &&Pod| status::is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        let healthy = pods.iter().filter(healthy).count();
        least = least.min(healthy);
        seen.extend(pods.iter().filter_map(ResourceExt::uid));
        healthy == 3 && !pods.iter().any(|pod| on(pod, node))
    };
    test.pods_until("app=web", "the pods to move", gone).await?;
    ensure!(seen.len() >= 6, "{} pods were seen", seen.len());
    Ok(least)
}

/// A drained node takes no pod until it is uncordoned.
async fn comes_back(test: &Test<'_>, node: &str) -> Result<()> {
    test.pod("next", test.spec(&["lines", "0", "1000"])).await?;
    let unscheduled = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|one| one.reason.as_deref() == Some("Unschedulable"))
    };
    test.pod_until("next", "to find no node", unscheduled).await?;
    test.kubectl(&["uncordon", node])?;
    test.pod_until("next", "to be ready", status::is_ready).await?;
    Ok(())
}
