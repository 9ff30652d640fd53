//! A clock that was set while no agent looked: the record is made to be of a machine whose clock was another one. And one that is
//! set in earnest, under all of a pod, which `just test-vm` does in a virtual machine.

use std::fs;
use std::path::PathBuf;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp, ToSpan};
use rustix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::{Value, json};

use crate::health::{self, http, is_ready};
use crate::node::Node;
use crate::{gone, on_disk};

/// So far the clock was ahead when the record was written, in hours.
const AHEAD: [i64; 2] = [1, -1];

fn file(node: &Node) -> PathBuf {
    node.root.path().join("pods/web/record.json")
}

fn record(node: &Node) -> Value {
    serde_json::from_slice(&fs::read(file(node)).unwrap()).unwrap()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Writes these times, and how the clock was set, as a clock would have had it that was so far ahead.
fn write(node: &Node, ahead: i64, times: &[&str]) {
    let mut record = record(node);
    for pointer in times.iter().chain(&["/clock/began"]) {
        let value = record.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        *value = json!((time(value) + ahead.hours()).to_string());
    }
    fs::write(file(node), record.to_string()).unwrap();
}

fn pod(node: &Node, image: &str) -> Value {
    let mut pod = crate::pod("web", "web");
    pod["spec"]["containers"] = json!([node.container("app", image)]);
    pod
}

#[tokio::test]
async fn a_back_off_is_as_long_as_it_was_though_the_clock_was_set() {
    const REASON: &str = "/containerStatuses/0/state/waiting/reason";
    for ahead in AHEAD {
        let node = Node::new().await;
        let first = node.agent().await;
        node.api.apply(pod(&node, "fails"));
        let told = node.api.status("web", REASON, "CrashLoopBackOff").await;
        assert_eq!(told["status"]["containerStatuses"][0]["restartCount"], 1);
        drop(first);
        let ended = time(record(&node).pointer("/containers/app/run/end/finishedAt").unwrap());
        let times = ["/containers/app/run/end/finishedAt", "/containers/app/backoff/since"];
        write(&node, ahead, &times);
        let _second = node.agent().await;
        let third = || {
            let run = &record(&node)["containers"]["app"]["run"];
            let ended = run["attempt"] == 2 && run["end"].is_object();
            ended.then(|| time(&run["end"]["startedAt"]))
        };
        on_disk("it to run again and end", || third().is_some()).await;
        let waited = third().unwrap().duration_since(ended);
        assert!(waited >= SignedDuration::from_secs(10), "{ahead}: {waited:?}");
    }
}

#[tokio::test]
async fn a_grace_period_is_over_when_it_was_to_be_though_the_clock_was_set() {
    let node = Node::new().await;
    let first = node.agent().await;
    node.api.apply(pod(&node, "deaf"));
    node.api.status("web", "/phase", "Running").await;
    node.api.delete("web", 3);
    on_disk("its stop", || !record(&node)["stop"].is_null()).await;
    drop(first);
    write(&node, 1, &["/stop/since"]);
    let _second = node.agent().await;
    gone(node.root.path(), "web").await;
}

/// Sets the machine's clock, by so many hours.
fn set(hours: i64) {
    let mut now = clock_gettime(ClockId::Realtime);
    now.tv_sec += hours * 3600;
    clock_settime(ClockId::Realtime, now).unwrap();
}

#[tokio::test]
#[ignore = "sets the machine's clock: `just test-vm` runs it in a machine of its own"]
async fn a_pod_lives_on_its_probes_and_tokens_too_while_the_machines_clock_is_set() {
    const LIFE: i64 = 20;
    // The second one sets it right again.
    for hours in [1, -1] {
        let node = health::Node::new().await;
        node.api.tokens_live(LIFE);
        let agent = node.agent().await;
        let probes = json!({"livenessProbe": http("/live"), "readinessProbe": http("/ready"),
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let mut pod = crate::pod("web", "u1");
        pod["spec"]["containers"] = json!([node.container("app", "waits", &probes)]);
        pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "k", "expirationSeconds": 3607}}]}}]);
        pod["spec"]["activeDeadlineSeconds"] = json!(3000);
        node.api.apply(pod);
        let before = node.until("ready", is_ready).await;
        let tokens = || node.api.requests(&Method::POST, "/token").len();
        assert_eq!(tokens(), 1);
        set(hours);
        for path in ["/live", "/ready"] {
            node.peer.until(path, node.peer.count(path) + 3).await;
        }
        node.api.until("another token", |_| (tokens() == 2).then_some(())).await;
        // The next agent sees the clock that was set, too.
        drop(agent);
        let _next = node.agent().await;
        node.peer.until("/live", node.peer.count("/live") + 3).await;
        let now = node.until("ready", is_ready).await;
        assert_eq!(now, before, "it was started again, or shown so");
        assert_eq!(tokens(), 3, "the next agent has none");
        node.delete(1).await;
    }
}
