//! The machine of a node is shut down (KEP-2000).

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use nodule_e2e::agent::Options;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;

use crate::logind::Logind;
use crate::said::{all_said, on_node, said};

#[tokio::test]
async fn a_shutdown_waits_for_pods_that_say_why_they_end_and_the_node_takes_none_on() -> Result<()>
{
    let logind = Logind::start().await?;
    let options = Options {
        kubelet: json!({
            "shutdownGracePeriod": "60s", "shutdownGracePeriodCriticalPods": "30s",
        }),
        variables: vec![("DBUS_SYSTEM_BUS_ADDRESS", logind.address().to_owned())],
        ..Options::default()
    };
    test::run_with(&options, async |test| {
        logind.locked(1).await?;
        let mut critical = on_node(test);
        critical["priorityClassName"] = json!("system-node-critical");
        let mut done = test.spec(&["exit", "0"]);
        done["restartPolicy"] = json!("Never");
        let cases = vec![
            ("web", on_node(test), &["Ready=True"][..]),
            ("critical", critical, &["Ready=True"]),
            ("done", done, &["phase=Succeeded"]),
        ];
        all_said(test, cases).await?;
        ensure!(logind.holds()?, "a shutdown would not wait");

        logind.prepare_for_shutdown(true).await?;
        shows(test, "False", "KubeletNotReady", "node is shutting down").await?;
        let ended = &[
            "phase=Failed",
            "reason=Terminated",
            "message=Pod was terminated in response to imminent node shutdown.",
            "DisruptionTarget=True TerminationByKubelet",
            "Ready=False PodFailed",
        ];
        said(test, &[("web", ended), ("critical", ended)]).await?;
        logind.released().await?;
        let done = test.pod_until("done", "to be there", |_| true).await?;
        ensure!(status::phase(&done) == "Succeeded", "what had ended before is as it was");

        let refused = &[
            "phase=Failed",
            "reason=NodeShutdown",
            "message=Pod was rejected: Pod was rejected as the node is shutting down.",
        ];
        all_said(test, vec![("late", on_node(test), refused)]).await?;

        logind.prepare_for_shutdown(false).await?;
        shows(test, "True", "KubeletReady", "kubelet is posting ready status").await?;
        logind.locked(2).await?;
        all_said(test, vec![("next", on_node(test), &["Ready=True"])]).await
    })
    .await
}

/// Waits until the node says this of whether it is Ready.
async fn shows(test: &Test<'_>, ready: &str, reason: &str, message: &str) -> Result<()> {
    let so = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|one| {
            let said = (one.type_.as_str(), one.status.as_str());
            let why = (one.reason.as_deref(), one.message.as_deref());
            said == ("Ready", ready) && why == (Some(reason), Some(message))
        })
    };
    let (nodes, which) = (Api::<Node>::all(test.client.clone()), wait::named(test.agent.name()));
    wait::until(nodes, which, message, |found| found.iter().any(so)).await.map(drop)
}
