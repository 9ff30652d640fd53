//! A clock that was set while no agent looked: the record is made to be of a machine whose clock was another one.

use std::fs;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::{Value, json};

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
