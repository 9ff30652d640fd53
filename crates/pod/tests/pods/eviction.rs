//! Pods that end because their node runs short, and what goes before they do.

use std::fs;
use std::path::{Path, PathBuf};

use axum::http::Method;
use nodule_pod::{Resource, Starved};
use serde_json::{Value, json};

use crate::node::Node;
use crate::{Agent, on_disk};

/// Of the disk, which is short as long as less than `wanted` is there.
fn disk(threshold: u64, wanted: u64) -> Starved {
    Starved { resource: Resource::Storage, threshold, available: 0, wanted, longest_grace: None }
}

fn memory(longest_grace: Option<u64>) -> Starved {
    let (threshold, available) = (100 << 20, 50 << 20);
    Starved { resource: Resource::Memory, threshold, available, wanted: threshold, longest_grace }
}

/// The Event of an eviction.
async fn evicted(node: &Node) -> Value {
    let posted = node.api.until("event", |api| {
        let posts = api.requests(&Method::POST, "/events");
        posts.into_iter().map(|(_, body)| body).find(|event| event["reason"] == "Evicted")
    });
    posted.await
}

#[tokio::test]
async fn the_pod_that_is_most_over_its_request_goes_and_no_other_until_the_node_is_measured_again()
{
    let node = Node::new().await;
    let agent = node.agent().await;
    for (name, request, priority) in
        [("modest", "1Gi", 0), ("over", "0", 0), ("system", "0", 2_000_000_000)]
    {
        let mut pod = crate::pod(name, name);
        let mut container = node.container("app", "waits");
        container["resources"] = json!({"requests": {"memory": request}});
        pod["spec"]["containers"] = json!([container]);
        pod["spec"]["priority"] = json!(priority);
        node.api.apply(pod);
        node.api.status(name, "/phase", "Running").await;
    }
    let short = memory(None);
    agent.starved.send_replace(vec![short]);
    let told = node.api.status("over", "/reason", "Evicted").await;
    assert_eq!(told["status"]["phase"], "Failed");
    let message = told["status"]["message"].as_str().unwrap();
    let start = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container app was using ";
    assert!(message.starts_with(start), "{message}");
    assert!(message.ends_with(", request is 0, has larger consumption of memory. "), "{message}");
    let conditions = told["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "DisruptionTarget"), "{conditions:?}");
    let event = evicted(&node).await;
    assert_eq!(event["metadata"]["annotations"]["starved_resource"], "memory");
    assert_eq!(event["metadata"]["annotations"]["offending_containers"], "app");

    // The next measure still finds it short, and then there is only the critical one.
    agent.starved.send_replace(vec![short]);
    node.api.status("modest", "/reason", "Evicted").await;
    agent.starved.send_replace(vec![short]);
    agent.starved.send_replace(Vec::new());
    assert_eq!(node.api.pod("system").unwrap()["status"]["phase"], "Running");
}

#[tokio::test]
async fn what_is_measured_while_a_pod_ends_evicts_no_other() {
    let node = Node::new().await;
    let agent = node.agent().await;
    let runs = async |name: &str, priority: i32| {
        let mut pod = crate::pod(name, name);
        pod["spec"]["containers"] = json!([node.container("app", "deaf")]);
        pod["spec"]["priority"] = json!(priority);
        node.api.apply(pod);
        node.api.status(name, "/phase", "Running").await;
    };
    runs("first", 0).await;
    runs("second", 1).await;
    agent.starved.send_replace(vec![memory(None)]);
    on_disk("the first to end", || recorded(node.root.path(), "first")["stop"].is_object()).await;
    agent.starved.send_replace(vec![memory(None)]);
    node.api.status("first", "/reason", "Evicted").await;
    runs("third", 2).await;
    let second = recorded(node.root.path(), "second");
    assert!(second["stop"].is_null(), "it ends, too: {second}");
    agent.starved.send_replace(vec![memory(None)]);
    on_disk("the second to end", || recorded(node.root.path(), "second")["stop"].is_object()).await;
}

#[tokio::test]
async fn below_a_soft_threshold_a_pod_ends_in_its_own_time_as_far_as_the_node_has_it() {
    let node = Node::new().await;
    let agent = node.agent().await;
    for (name, own, longest, grace) in [("hurried", 600, 3, 3), ("quick", 2, 600, 2)] {
        let mut pod = crate::pod(name, name);
        pod["spec"]["containers"] = json!([node.container("app", "deaf")]);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(own);
        node.api.apply(pod);
        node.api.status(name, "/phase", "Running").await;

        agent.starved.send_replace(vec![memory(Some(longest))]);

        let told = node.api.status(name, "/reason", "Evicted").await;
        assert_eq!(told["status"]["phase"], "Failed", "{told}");
        let end = &told["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&end["exitCode"], &end["reason"]), (&json!(137), &json!("Error")), "{told}");
        let conditions = told["status"]["conditions"].as_array().unwrap();
        let disrupted = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
        assert_eq!(disrupted["reason"], "TerminationByKubelet");
        let ready = conditions.iter().find(|one| one["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], "False");
        assert_eq!(recorded(node.root.path(), name)["stop"]["grace"], grace, "{name}");
    }
    assert_eq!(evicted(&node).await["type"], "Warning");
    assert_eq!(node.killed(), ["app", "app"]);
    let told: Vec<_> =
        node.api.events().into_iter().filter(|(why, _)| why == "EvictionThresholdMet").collect();
    assert_eq!(told[0].1, "Attempting to reclaim memory");
}

/// What the node has written down of a pod.
pub(crate) fn recorded(root: &Path, uid: &str) -> Value {
    let text = fs::read(root.join("pods").join(uid).join("record.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The images of this agent by their names without registry and tag, sorted.
fn images(agent: &Agent) -> Vec<String> {
    let names = agent.images.list().into_iter().flat_map(|image| image.names);
    let tagged = names.filter(|name| !name.contains('@'));
    let mut short: Vec<_> = tagged
        .map(|name| name.rsplit('/').next().unwrap().trim_end_matches(":1").to_owned())
        .collect();
    short.sort();
    short
}

/// Where an ended pod has left something.
fn leftovers(root: &Path, pod: &str) -> [PathBuf; 2] {
    let containers = root.join("pods").join(pod).join("containers");
    [containers, root.join("logs").join(format!("default_{pod}_{pod}"))]
}

#[tokio::test]
async fn what_nobody_needs_goes_from_a_full_disk_before_a_pod_does() {
    let node = Node::new().await;
    let agent = node.agent().await;
    let mut job = crate::pod("job", "job");
    job["spec"]["containers"] = json!([node.container("app", "fails")]);
    job["spec"]["restartPolicy"] = json!("Never");
    node.api.apply(job);
    node.api.status("job", "/phase", "Failed").await;
    let mut web = crate::pod("web", "web");
    web["spec"]["initContainers"] = json!([node.container("first", "done")]);
    web["spec"]["containers"] = json!([node.container("app", "waits")]);
    node.api.apply(web);
    node.api.status("web", "/phase", "Running").await;
    assert_eq!(images(&agent), ["done", "fails", "waits"]);
    let left = leftovers(node.root.path(), "job");
    assert!(left.iter().all(|path| path.exists()), "{left:?}");

    // All is well as soon as anything is free.
    agent.starved.send_replace(vec![disk(1, 1)]);
    on_disk("room", || images(&agent) == ["done", "waits"]).await;
    assert!(!left.iter().any(|path| path.exists()), "{left:?}");
    let links = fs::read_dir(node.root.path().join("containers")).unwrap();
    let links: Vec<_> = links.map(|link| link.unwrap().file_name()).collect();
    assert!(links.iter().all(|name| name.to_string_lossy().starts_with("web_")), "{links:?}");
    let web = leftovers(node.root.path(), "web");
    assert!(web.iter().all(|path| path.exists()), "{web:?}");

    // Nothing is left to go, and no disk is as large. That this is what the pod was evicted for shows that it was not before.
    agent.starved.send_replace(vec![disk(2, u64::MAX)]);
    let told = node.api.status("web", "/reason", "Evicted").await;
    let message = told["status"]["message"].as_str().unwrap();
    let start =
        "The node was low on resource: ephemeral-storage. Threshold quantity: 2, available: 0. ";
    assert!(message.starts_with(start), "{message}");
    // It has left something in its turn, and a pod that has ended is known by its status alone.
    agent.starved.send_replace(vec![disk(1, 1)]);
    on_disk("room", || images(&agent).is_empty()).await;
    assert!(!web.iter().any(|path| path.exists()), "{web:?}");
    for name in ["job", "web"] {
        node.api.delete(name, 30);
        node.api.until("removal", |api| api.pod(name).is_none().then_some(())).await;
        crate::gone(node.root.path(), name).await;
    }
}
