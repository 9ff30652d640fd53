//! Each kind of request that the agent makes fails once: the pod comes to its goal all the same, and starts once.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;

use crate::asked::{Asked, Fault};
use crate::proxied::{AFTER, nothing_is_left};
use crate::proxy::Proxy;
use crate::said::on_node;

/// Refused, asked to come again later, and done without the agent being told.
pub(crate) const FAULTS: [Fault; 3] = [Fault::Code(500), Fault::Code(429), Fault::Lost];

/// What a node asks for when it starts, and then now and again.
const NODE: [&str; 11] = [
    "create nodes",
    "list nodes",
    "watch nodes",
    "patch nodes/status",
    "get nodes",
    "get leases",
    "update leases",
    "create events",
    "list services",
    "watch services",
    "list pods",
];
/// What it asks for a pod, from its start to its end.
const POD: [&str; 12] = [
    "watch pods",
    "list configmaps",
    "watch configmaps",
    "list secrets",
    "watch secrets",
    "get secrets",
    "create serviceaccounts/token",
    "create subjectaccessreviews",
    "create events",
    "patch events",
    "patch pods/status",
    "delete pods",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_request_fails_once_the_pod_comes_to_its_goal_and_starts_once() -> Result<()> {
    test::run(async |test| {
        let proxy = Proxy::before(test).await?;
        let secret = json!({ "metadata": { "name": "key" }, "stringData": { "k": "open" } });
        test.create::<Secret>(secret).await?;
        for fault in FAULTS {
            fails(test, &proxy, fault).await.with_context(|| format!("{fault:?}"))?;
        }
        Ok(())
    })
    .await
}

async fn fails(test: &mut Test<'_>, proxy: &Proxy, fault: Fault) -> Result<()> {
    test.agent.stop()?;
    proxy.fail_each(fault);
    test.agent.start_again()?;
    proxy.each_met(&NODE).await?;
    proxy.fail_each(fault);
    proxy.cut();
    let name = format!("{fault:?}").to_lowercase().replace(['(', ')'], "");
    life(test, &name).await?;
    proxy.each_met(&POD).await?;
    if fault == Fault::Code(429) {
        comes_later(proxy)?;
    }
    wait::node_ready(test.client.clone(), test.agent.name()).await?;
    Ok(())
}

/// Where the API server has asked to be left alone, the next of these requests came no sooner.
fn comes_later(proxy: &Proxy) -> Result<()> {
    let asked = proxy.asked();
    for what in ["patch nodes/status", "patch pods/status"] {
        let all: Vec<_> = asked.iter().filter(|one| one.what == what).collect();
        let told = |one: &&Asked| one.answered.filter(|(_, code)| *code == 429).map(|(at, _)| at);
        let (place, at) =
            all.iter().enumerate().find_map(|(n, one)| Some((n, told(one)?))).context(what)?;
        let name = &all[place].name;
        let next = all[place + 1..].iter().find(|one| one.name == *name).context("the next")?;
        ensure!(next.at.duration_since(at) >= AFTER, "{what} came too soon");
    }
    Ok(())
}

/// A pod's life: it waits for its ConfigMap, runs once, one of its containers ends well, and it is deleted.
async fn life(test: &Test<'_>, name: &str) -> Result<()> {
    let mut spec = on_node(test);
    let image = spec["containers"][0]["image"].clone();
    spec["containers"] = json!([
        { "name": "main", "image": image, "args": ["lines", "3", "1"] },
        { "name": "stays", "image": image, "args": ["lines", "0", "1000"] },
    ]);
    spec["restartPolicy"] = json!("Never");
    spec["imagePullSecrets"] = json!([{ "name": "key" }]);
    spec["volumes"] = json!([
        { "name": "config", "configMap": { "name": name } },
        { "name": "key", "secret": { "secretName": "key" } },
    ]);
    test.pod(name, spec).await?;
    let waits = |events: &[Event]| count(events, name, "FailedMount") > 2;
    wait::until(test.api(), wait::all(), "the pod to wait for its ConfigMap", waits).await?;
    let map = json!({ "metadata": { "name": name }, "data": { "a": "b" } });
    test.create::<ConfigMap>(map).await?;

    let ended = test.pod_until(name, "to end", |pod| status::terminated(pod).is_some()).await?;
    let code = status::terminated(&ended).map(|end| end.exit_code);
    ensure!(code == Some(0) && status::restarts(&ended) == 0, "{ended:?}");
    let log = test.kubectl(&["logs", name, "--container=main"])?;
    ensure!(log == "line 1\nline 2\nline 3\n", "its log: {log:?}");
    let once = |events: &[Event]| {
        ["Created", "Started"].iter().all(|reason| count(events, name, reason) == 2)
    };
    wait::until(test.api(), wait::all(), "one start each to be told", once).await?;
    test.kubectl(&["delete", "pod", name, "--wait=false"])?;
    wait::until(test.api::<Pod>(), wait::named(name), "it to go", <[_]>::is_empty).await?;
    nothing_is_left(test).await
}

/// How often this was said of a pod.
pub(crate) fn count(events: &[Event], pod: &str, reason: &str) -> i32 {
    let of_it = |event: &&Event| {
        event.involved_object.name.as_deref() == Some(pod)
            && event.reason.as_deref() == Some(reason)
    };
    events.iter().filter(of_it).filter_map(|event| event.count).sum()
}
