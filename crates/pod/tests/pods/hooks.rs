//! What is asked of containers around their end and their start.

use serde_json::json;

use crate::health::{Node, hook, http, is_ready};

#[tokio::test]
async fn while_a_pod_ends_only_its_readiness_is_asked_for() {
    let node = Node::new().await;
    node.peer.answer("/bye", 0);
    node.peer.answer("/started", 500);
    let _agent = node.agent().await;
    let probes = json!({
        "livenessProbe": http("/alive"), "readinessProbe": http("/ready"),
        "lifecycle": {"preStop": hook("/bye")},
    });
    let mut startup = http("/started");
    startup["failureThreshold"] = json!(1000);
    let slow = json!({"startupProbe": startup});
    let containers =
        json!([node.container("app", "waits", &probes), node.container("slow", "waits", &slow)]);
    node.pod("Always", &containers);
    node.until("ready", is_ready).await;
    node.peer.until("/alive", 1).await;
    node.peer.until("/started", 1).await;
    node.api.delete("web", 600);
    node.peer.until("/bye", 1).await;
    // What was on its way has come by then.
    node.peer.until("/ready", node.peer.count("/ready") + 2).await;
    let others = || (node.peer.count("/alive"), node.peer.count("/started"));
    let asked = others();
    node.peer.until("/ready", node.peer.count("/ready") + 3).await;
    assert_eq!(others(), asked);
    node.peer.answer("/ready", 500);
    node.until("unready", |status| status["ready"] == false).await;
    // The grace period only shrinks, and at once.
    node.delete(1).await;
    assert_eq!(node.peer.count("/bye"), 1);
}

#[tokio::test]
async fn a_hook_by_https_that_meets_plain_http_is_asked_by_that_without_its_credentials() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let mut hello = hook("/hello");
    hello["httpGet"]["scheme"] = json!("HTTPS");
    hello["httpGet"]["httpHeaders"] = json!([
        {"name": "Authorization", "value": "Bearer secret"}, {"name": "X-Kept", "value": "yes"}]);
    let more = json!({"lifecycle": {"postStart": hello}});
    node.pod("Always", &json!([node.container("app", "waits", &more)]));
    node.until("ready", is_ready).await;
    assert_eq!(node.peer.asked(), ["/hello"]);
    let headers = node.peer.headers("/hello");
    assert!(!headers.contains_key("authorization"), "{headers:?}");
    assert_eq!(headers["x-kept"], "yes");
    let at = format!("127.0.0.1:{}", node.peer.port);
    let said = format!(
        "request to HTTPS lifecycle hook {at} got HTTP response, retry with HTTP succeeded"
    );
    node.event("LifecycleHTTPFallback", &said).await;
    node.delete(1).await;
}
