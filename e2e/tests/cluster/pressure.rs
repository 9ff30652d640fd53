//! A node that runs short of memory, as the cluster sees it.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Taint};
use kube::Api;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::{Value, json};

use crate::said::{Case, all_said, on_node, said};

/// More than there is on any machine.
const MUCH: &str = "1Pi";

#[tokio::test]
async fn a_node_short_of_memory_says_so_evicts_a_pod_and_refuses_those_without_requests()
-> Result<()> {
    test::run(async |test| {
        let ready = &["Ready=True"][..];
        all_said(test, vec![("web", burstable(test), ready), critical(test)]).await?;
        let config = test.agent.file("config.yaml");
        let text = fs::read_to_string(&config)?;
        let short = text.replace("\"100Mi\"", &format!("\"{MUCH}\""));
        ensure!(short != text, "no threshold in {text}");
        fs::write(&config, short)?;
        test.agent.stop()?;
        test.agent.start_again()?;

        is_short(test).await?;
        let gone = &[
            "phase=Failed",
            "reason=Evicted",
            "DisruptionTarget=True TerminationByKubelet",
            "Ready=False PodFailed",
            "main terminated Error 137",
        ];
        said(test, &[("web", gone)]).await?;
        why(test).await?;
        let refused = &[
            "phase=Failed",
            "reason=Evicted",
            "message=Pod was rejected: The node had condition: [MemoryPressure]. ",
        ];
        all_said(test, vec![("late", on_node(test), refused)]).await?;
        let late = test.pod_until("late", "to be there", |_| true).await?;
        let containers = late.status.and_then(|status| status.container_statuses);
        ensure!(containers.is_none_or(|all| all.is_empty()), "it shows containers");
        let critical = test.pod_until("critical", "to be ready", status::is_ready).await?;
        ensure!(status::restarts(&critical) == 0, "the critical pod was touched");
        Ok(())
    })
    .await
}

/// Asks for something, so that it is no best-effort pod, but for none of the memory that it uses.
fn burstable(test: &Test<'_>) -> Value {
    let mut spec = on_node(test);
    spec["containers"][0]["resources"] = json!({ "requests": { "cpu": "1m" } });
    spec
}

fn critical(test: &Test<'_>) -> Case {
    let mut spec = burstable(test);
    spec["priorityClassName"] = json!("system-node-critical");
    ("critical", spec, &["Ready=True"])
}

/// Waits until the node has its condition, and the taint that the cluster gives it for that.
async fn is_short(test: &Test<'_>) -> Result<()> {
    let tainted = |taint: &Taint| {
        taint.key == "node.kubernetes.io/memory-pressure" && taint.effect == "NoSchedule"
    };
    let so = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = conditions.into_iter().any(|one| {
            (one.type_.as_str(), one.status.as_str()) == ("MemoryPressure", "True")
                && one.reason.as_deref() == Some("KubeletHasInsufficientMemory")
                && one.message.as_deref() == Some("kubelet has insufficient memory available")
        });
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        told && taints.into_iter().any(tainted)
    };
    let (nodes, which) = (Api::<Node>::all(test.client.clone()), wait::named(test.agent.name()));
    let found = |nodes: &[Node]| nodes.iter().any(so);
    wait::until(nodes, which, "MemoryPressure with its taint", found).await.map(drop)
}

/// Looks at what was said of the eviction: in the status, with the condition, and in Events of the pod and the node.
async fn why(test: &Test<'_>) -> Result<()> {
    let web: Pod = test.api().get("web").await?;
    let status = web.status.context("a status")?;
    let message = status.message.unwrap_or_default();
    let begins =
        format!("The node was low on resource: memory. Threshold quantity: {MUCH}, available: ");
    let used = message.strip_prefix(&begins).and_then(|rest| {
        let rest = rest.split_once(". Container main was using ")?.1;
        rest.strip_suffix(", request is 0, has larger consumption of memory. ")
    });
    let used = used.with_context(|| format!("not in the kubelet's words: {message}"))?;
    let conditions = status.conditions.unwrap_or_default();
    let disrupted = conditions.iter().find(|one| one.type_ == "DisruptionTarget");
    ensure!(disrupted.and_then(|one| one.message.as_deref()) == Some(&message), "{disrupted:?}");

    let evicted = |event: &Event| {
        let noted = event.metadata.annotations.clone().unwrap_or_default();
        let note = |key: &str| noted.get(key).map(String::as_str);
        event.reason.as_deref() == Some("Evicted")
            && event.type_.as_deref() == Some("Warning")
            && event.message.as_deref() == Some(&message)
            && note("offending_containers") == Some("main")
            && note("offending_containers_usage") == Some(used)
            && note("starved_resource") == Some("memory")
    };
    let any = |events: &[Event]| events.iter().any(evicted);
    wait::until(test.api(), wait::all(), "the eviction's Event", any).await?;
    let of_node = wait::all().fields(&format!("involvedObject.name={}", test.agent.name()));
    let met = |events: &[Event]| {
        let said = |event: &Event| {
            event.reason.as_deref() == Some("EvictionThresholdMet")
                && event.message.as_deref() == Some("Attempting to reclaim memory")
        };
        events.iter().any(said)
    };
    let events = Api::namespaced(test.client.clone(), "default");
    wait::until(events, of_node, "an Event of the node", met).await.map(drop)
}
