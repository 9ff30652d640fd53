//! Pods that the node takes on, or does not.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};

use crate::api::{Api, Fault};
use crate::node::Node;

fn pod(node: &Node, name: &str, cpu: &str) -> Value {
    let mut pod = crate::pod(name, name);
    let mut container = node.container("app", "waits");
    container["resources"] = json!({"requests": {"cpu": cpu}});
    pod["spec"]["containers"] = json!([container]);
    pod["status"]["qosClass"] = json!("Burstable");
    pod
}

/// Waits until the pod has been ended by its node for this reason.
async fn failed(api: &Api, name: &str, reason: &str) -> Value {
    let told = api.status(name, "/reason", reason).await;
    assert_eq!(told["status"]["phase"], "Failed");
    told
}

#[tokio::test]
async fn a_pod_that_does_not_fit_has_failed_says_why_and_shows_no_container() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    node.api.apply(pod(&node, "first", "5"));
    node.api.status("first", "/phase", "Running").await;
    node.api.apply(pod(&node, "second", "4"));
    let told = failed(&node.api, "second", "OutOfcpu").await;
    let why = "Node didn't have enough resource: cpu, requested: 4000, used: 5000, capacity: 8000";
    assert_eq!(told["status"]["message"], format!("Pod was rejected: {why}"));
    assert!(told["status"]["containerStatuses"].is_null(), "{told}");
    let event = node
        .api
        .until("event", |api| api.events().into_iter().find(|(reason, _)| reason == "OutOfcpu"));
    assert_eq!(event.await.1, why);

    let mut linux = pod(&node, "linux", "1");
    linux["spec"]["os"] = json!({"name": "linux"});
    node.api.apply(linux);
    failed(&node.api, "linux", "PodOSNotSupported").await;
    let mut elsewhere = pod(&node, "elsewhere", "1");
    elsewhere["spec"]["nodeSelector"] = json!({"disk": "fast"});
    node.api.apply(elsewhere);
    failed(&node.api, "elsewhere", "NodeAffinity").await;
    // What was refused holds nothing.
    node.api.apply(pod(&node, "third", "3"));
    node.api.status("third", "/phase", "Running").await;
    // A pod that was refused is told once, and can be removed.
    assert_eq!(node.api.requests(&Method::PATCH, "/pods/second/status").len(), 1);
    node.api.delete("second", 30);
    node.api.until("removal", |api| api.pod("second").is_none().then_some(())).await;
}

/// A pod for nodes with this disk.
fn selective(node: &Node, name: &str, disk: &str) -> Value {
    let mut pod = pod(node, name, "1");
    pod["spec"]["nodeSelector"] = json!({"disk": disk});
    pod
}

fn labelled(disk: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"disk": disk}}})
}

#[tokio::test]
async fn a_node_is_read_once_more_before_a_pod_is_refused_for_its_affinity() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    node.api.put("nodes", labelled("fast"));
    for fault in [Fault::Code(503), Fault::Cut] {
        node.api.fail(Method::GET, "/nodes/n1", fault);
    }
    let asked = || node.api.requests(&Method::GET, "/nodes/n1").len();
    // A label that the watch has not shown.
    node.api.apply(selective(&node, "web", "fast"));
    node.api.status("web", "/phase", "Running").await;
    assert_eq!(asked(), 3);

    node.api.apply(selective(&node, "other", "slow"));
    let told = failed(&node.api, "other", "NodeAffinity").await;
    let why = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    assert_eq!(told["status"]["message"], format!("Pod was rejected: {why}"));
    assert_eq!(asked(), 4);
    // What it had of the node while it was read is free again: of eight CPUs one is taken.
    node.api.apply(pod(&node, "large", "7"));
    node.api.status("large", "/phase", "Running").await;
    // Whoever fits by what the watch has shown asks nobody.
    assert_eq!(asked(), 4);
}

#[tokio::test]
async fn a_node_that_may_not_be_read_is_as_the_watch_has_shown_it() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    node.api.put("nodes", labelled("fast"));
    node.api.fail(Method::GET, "/nodes/n1", Fault::Code(403));
    node.api.apply(selective(&node, "web", "fast"));
    failed(&node.api, "web", "NodeAffinity").await;
    assert_eq!(node.api.requests(&Method::GET, "/nodes/n1").len(), 1);
}

#[tokio::test]
async fn a_pod_that_runs_is_not_asked_about_again_by_the_next_agent() {
    let node = Node::new().await;
    let first = node.agent().await;
    node.api.apply(pod(&node, "web", "5"));
    node.api.status("web", "/phase", "Running").await;
    drop(first);
    let agent = node.agent().await;
    agent.registered.send_modify(|known| {
        let mut small = (**known.as_ref().unwrap()).clone();
        let allocatable = json!({"cpu": "1", "memory": "1Gi", "pods": "110"});
        small.status.as_mut().unwrap().allocatable = serde_json::from_value(allocatable).unwrap();
        *known = Some(Arc::new(small));
    });
    node.api.apply(pod(&node, "other", "1"));
    failed(&node.api, "other", "OutOfcpu").await;
    assert_eq!(node.api.pod("web").unwrap()["status"]["phase"], "Running");
}

#[tokio::test]
async fn a_node_that_has_not_been_measured_keeps_pods_waiting() {
    let node = Node::new().await;
    let agent = node.agent().await;
    let whole = agent.registered.borrow().clone();
    agent.registered.send_modify(|known| {
        let mut bare = (**known.as_ref().unwrap()).clone();
        bare.status = None;
        *known = Some(Arc::new(bare));
    });
    node.api.apply(pod(&node, "web", "1"));
    node.api.status("web", "/phase", "Pending").await;
    agent.registered.send_replace(whole);
    node.api.status("web", "/phase", "Running").await;
}

#[tokio::test]
async fn a_critical_pod_gets_its_room_from_others_and_starts_when_they_are_gone() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    node.api.apply(pod(&node, "large", "5"));
    node.api.apply(pod(&node, "small", "2"));
    for name in ["large", "small"] {
        node.api.status(name, "/phase", "Running").await;
    }
    let mut critical = pod(&node, "critical", "3");
    critical["spec"]["priority"] = json!(2_000_000_000);
    node.api.apply(critical);
    node.api.status("critical", "/phase", "Running").await;
    let told = failed(&node.api, "small", "Preempting").await;
    assert_eq!(told["status"]["message"], "Preempted in order to admit critical pod");
    let conditions = told["status"]["conditions"].as_array().unwrap();
    let disrupted = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&disrupted["status"], &disrupted["reason"]),
        (&json!("True"), &json!("TerminationByKubelet"))
    );
    assert_eq!(node.api.pod("large").unwrap()["status"]["phase"], "Running");
}
