//! Pods that end because their node runs short.

use nodule_pod::{Resource, Starved};
use serde_json::json;

use crate::node::Node;

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
    let short = Starved {
        resource: Resource::Memory,
        threshold: 100 << 20,
        available: 50 << 20,
        longest_grace: None,
    };
    agent.starved.send_replace(vec![short]);
    let told = node.api.status("over", "/reason", "Evicted").await;
    assert_eq!(told["status"]["phase"], "Failed");
    let message = told["status"]["message"].as_str().unwrap();
    let start = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container app was using ";
    assert!(message.starts_with(start), "{message}");
    assert!(message.ends_with(", request is 0, has larger consumption of memory. "), "{message}");
    let conditions = told["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "DisruptionTarget"), "{conditions:?}");
    let event = node.api.until("event", |api| {
        let posts = api.requests(&axum::http::Method::POST, "/events");
        posts.into_iter().map(|(_, body)| body).find(|event| event["reason"] == "Evicted")
    });
    let event = event.await;
    assert_eq!(event["metadata"]["annotations"]["starved_resource"], "memory");
    assert_eq!(event["metadata"]["annotations"]["offending_containers"], "app");

    // The next measure still finds it short, and then there is only the critical one.
    agent.starved.send_replace(vec![short]);
    node.api.status("modest", "/reason", "Evicted").await;
    agent.starved.send_replace(vec![short]);
    agent.starved.send_replace(Vec::new());
    assert_eq!(node.api.pod("system").unwrap()["status"]["phase"], "Running");
}
