//! Pods of a machine that is shut down.

use serde_json::json;

use crate::eviction::recorded;
use crate::node::Node;

#[tokio::test]
async fn pods_end_by_their_priority_and_no_new_one_is_taken_on() {
    let node = Node::new().await;
    let agent = node.agent().await;
    for (name, priority) in [("system", 2_000_000_000), ("web", 0)] {
        let mut pod = crate::pod(name, name);
        pod["spec"]["containers"] = json!([node.container(name, "waits")]);
        pod["spec"]["priority"] = json!(priority);
        node.api.apply(pod);
        node.api.status(name, "/phase", "Running").await;
    }
    agent.shutting.send_replace(true);
    agent.pods.drained().wait_for(|drained| *drained).await.unwrap();
    node.api.until("two kills", |_| (node.killed().len() == 2).then_some(())).await;
    assert_eq!(node.killed(), ["web", "system"]);
    for name in ["system", "web"] {
        let told = node.api.status(name, "/reason", "Terminated").await;
        assert_eq!(told["status"]["phase"], "Failed");
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(told["status"]["message"], message);
        let conditions = told["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|one| one["type"] == "DisruptionTarget"), "{conditions:?}");
    }
    let mut late = crate::pod("late", "late");
    late["spec"]["containers"] = json!([node.container("app", "waits")]);
    node.api.apply(late);
    node.api.status("late", "/reason", "NodeShutdown").await;

    // The shutdown was called off.
    agent.shutting.send_replace(false);
    agent.pods.drained().wait_for(|drained| !*drained).await.unwrap();
    let mut next = crate::pod("next", "next");
    next["spec"]["containers"] = json!([node.container("app", "waits")]);
    node.api.apply(next);
    node.api.status("next", "/phase", "Running").await;
}

#[tokio::test]
async fn a_pod_has_no_more_than_its_own_time_when_the_machine_is_shut_down() {
    let node = Node::new().await;
    let agent = node.agent().await;
    for (name, own) in [("quick", 2), ("slow", 600)] {
        let mut pod = crate::pod(name, name);
        pod["spec"]["containers"] = json!([node.container("app", "waits")]);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(own);
        node.api.apply(pod);
        node.api.status(name, "/phase", "Running").await;
    }
    agent.shutting.send_replace(true);
    for (name, grace) in [("quick", 2), ("slow", 60)] {
        node.api.status(name, "/reason", "Terminated").await;
        assert_eq!(recorded(node.root.path(), name)["stop"]["grace"], grace, "{name}");
    }
}
