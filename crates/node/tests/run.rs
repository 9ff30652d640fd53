//! The node against an API server that fails in every way.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests, which clippy does not know as such, may fail as tests do"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerImage, Node};
use nodule_node::{
    Amount, Clients, Config, Inputs, Outputs, Periods, Reserved, Starved, Thresholds,
};
use rustix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

mod peer;

use peer::{Fault, Peer};

/// The agent's side: what it holds, and the node that runs.
struct Agent {
    problems: watch::Sender<Vec<String>>,
    images: watch::Sender<Vec<ContainerImage>>,
    registered: watch::Receiver<Option<Arc<Node>>>,
    starved: watch::Receiver<Vec<Starved>>,
    _tasks: JoinSet<()>,
}

/// Nothing happens by itself but the Lease.
fn quiet() -> Periods {
    Periods {
        update: Duration::from_secs(3600),
        report: Duration::from_secs(36_000),
        startup: Duration::from_millis(1),
        gap: Duration::from_millis(1),
        lease: Duration::from_millis(40),
        request: Duration::from_secs(3600),
        retry_first: Duration::from_millis(1),
        retry_last: Duration::from_millis(4),
        pressure: Duration::ZERO,
    }
}

/// The same, computing its status all the time.
fn busy() -> Periods {
    Periods { update: Duration::from_millis(2), ..quiet() }
}

fn config(periods: Periods) -> Config {
    Config {
        name: "n1".to_owned(),
        hostname: "n1".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        port: 10250,
        root: "/".into(),
        os: "wasi".to_owned(),
        arch: "wasm32-wasi".to_owned(),
        wasi: "p1_p2".to_owned(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        provider_id: None,
        max_pods: 110,
        reserved: Reserved::default(),
        eviction: Thresholds {
            storage: Vec::new(),
            inodes: Vec::new(),
            memory: None,
            ..Thresholds::default()
        },
        strict_groups: true,
        version: "0.0.0".to_owned(),
        periods,
    }
}

fn start(peer: &Peer, periods: Periods) -> Agent {
    start_with(peer, config(periods))
}

fn start_with(peer: &Peer, config: Config) -> Agent {
    let (problems, images) = (watch::Sender::new(Vec::new()), watch::Sender::new(Vec::new()));
    let (sender, registered) = watch::channel(None);
    let clients = Clients { node: peer.client(), lease: peer.client(), events: peer.client() };
    let (_, unconfined) = watch::channel(std::collections::BTreeSet::new());
    let inputs = Inputs { problems: problems.subscribe(), unconfined, images: images.subscribe() };
    let mut tasks = JoinSet::new();
    let (short, starved) = watch::channel(Vec::new());
    let outputs = Outputs { registered: sender, starved: short };
    let run = nodule_node::run(clients, config, inputs, outputs);
    tasks.spawn(async move { panic!("ended: {:?}", run.await.unwrap_err()) });
    Agent { problems, images, registered, starved, _tasks: tasks }
}

fn condition(node: &Value, type_: &str) -> Value {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

fn set_condition(node: &mut Value, type_: &str, status: &str) {
    let conditions = node["status"]["conditions"].as_array_mut().unwrap();
    conditions.iter_mut().find(|condition| condition["type"] == type_).unwrap()["status"] =
        json!(status);
}

/// A Node that an earlier agent has left.
fn earlier() -> Value {
    json!({
        "metadata": {"name": "n1", "labels": {"team": "blue", "kubernetes.io/os": "linux"}},
        "spec": {"taints": [{"key": "theirs", "effect": "NoSchedule"}]},
        "status": {
            "capacity": {"cpu": "64", "example.com/gpu": "2"},
            "nodeInfo": {"bootID": "another", "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": ""},
            "conditions": [{"type": "NetworkUnavailable", "status": "False"}]
        }
    })
}

/// The requests that the renewals of some Leases give time for.
async fn during_renewals(peer: &mut Peer, renewals: usize) -> Vec<String> {
    let mut others = Vec::new();
    for _ in 0..renewals {
        others.extend(peer.next("PUT lease").await.1);
    }
    others
}

#[tokio::test]
async fn a_node_registers_with_lease_and_events() {
    let mut peer = Peer::start().await;
    let mut agent = start(&peer, quiet());
    let node = peer.next("POST node").await.0.body;
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/arch"], "wasm32-wasi");
    assert_eq!(condition(&node, "Ready")["status"], "True");
    peer.next("PUT lease").await;
    let lease = peer.lease();
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], peer.node()["metadata"]["uid"]);
    let registered = agent.registered.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(registered.metadata.uid.as_deref(), peer.node()["metadata"]["uid"].as_str());
}

#[tokio::test]
async fn registration_is_told_in_events() {
    let mut peer = Peer::start().await;
    let _agent = start(&peer, quiet());
    let mut reasons = Vec::new();
    for _ in 0..5 {
        let event = peer.next("POST event").await.0.body;
        assert_eq!(event["source"], json!({"component": "kubelet", "host": "n1"}));
        reasons.push(event["reason"].as_str().unwrap().to_owned());
    }
    let expected = [
        "Starting",
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
        "NodeReady",
    ];
    assert_eq!(reasons, expected);
}

async fn takes_over(peer: &mut Peer) {
    let _agent = start(peer, quiet());
    peer.next("PATCH status").await;
    peer.next("PUT lease").await;
    let node = peer.node();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "wasi");
    assert_eq!(node["metadata"]["labels"]["team"], "blue");
    assert_eq!(node["spec"]["taints"][0]["key"], "theirs");
    assert_eq!(node["status"]["capacity"]["example.com/gpu"], "2");
    assert_ne!(node["status"]["capacity"]["cpu"], "64");
    assert_eq!(condition(&node, "NetworkUnavailable")["status"], "False");
    assert_eq!(condition(&node, "Ready")["status"], "True");
}

#[tokio::test]
async fn a_node_that_exists_is_taken_over_and_what_others_wrote_stays() {
    let mut peer = Peer::start().await;
    peer.change_node(|node| *node = earlier());
    takes_over(&mut peer).await;
}

#[tokio::test]
async fn a_node_that_may_not_be_created_is_taken_over() {
    let mut peer = Peer::start().await;
    peer.change_node(|node| *node = earlier());
    peer.fail("POST node", [Fault::Code(403, 0)]);
    takes_over(&mut peer).await;
}

#[tokio::test]
async fn another_boot_id_is_a_reboot() {
    let mut peer = Peer::start().await;
    peer.change_node(|node| *node = earlier());
    let _agent = start(&peer, quiet());
    peer.next("POST event").await;
    let event = peer.next("POST event").await.0.body;
    assert_eq!((&event["reason"], &event["type"]), (&json!("Rebooted"), &json!("Warning")));
}

#[tokio::test]
async fn registration_outlives_every_failure_with_one_request_each() {
    let mut peer = Peer::start().await;
    let faults =
        [Fault::Code(500, 0), Fault::Cut, Fault::Code(422, 0), Fault::Code(503, 0), Fault::Cut];
    peer.fail("POST node", faults);
    let mut agent = start(&peer, quiet());
    let before_lease = peer.next("POST lease").await.1;
    assert_eq!(before_lease.iter().filter(|what| *what == "POST node").count(), 6);
    assert!(agent.registered.wait_for(Option::is_some).await.is_ok());
}

#[tokio::test]
async fn a_request_without_answer_is_given_up_and_made_again() {
    let mut peer = Peer::start().await;
    peer.fail("POST node", [Fault::Silence]);
    peer.fail("PUT lease", [Fault::Silence, Fault::Cut]);
    let _agent = start(&peer, Periods { request: Duration::from_millis(50), ..quiet() });
    peer.next("POST node").await;
    peer.next("POST node").await;
    for _ in 0..3 {
        peer.next("PUT lease").await;
    }
}

#[tokio::test]
async fn a_lease_conflict_is_solved_by_reading_the_lease() {
    let mut peer = Peer::start().await;
    let _agent = start(&peer, quiet());
    peer.next("PUT lease").await;
    peer.touch_lease();
    let (_, others) = peer.next("GET lease").await;
    assert!(!others.iter().any(|what| what == "POST lease"), "{others:?}");
    let seen = peer.next("PUT lease").await.0;
    assert_eq!(seen.body["spec"]["holderIdentity"], "n1");
    peer.next("PUT lease").await;
}

#[tokio::test]
async fn the_lease_is_renewed_while_a_status_hangs() {
    let mut peer = Peer::start().await;
    peer.change_node(|node| *node = earlier());
    peer.fail("PATCH status", [Fault::Silence]);
    let _agent = start(&peer, quiet());
    peer.next("PATCH status").await;
    let others = during_renewals(&mut peer, 10).await;
    assert!(!others.iter().any(|what| what == "PATCH status"), "{others:?}");
}

#[tokio::test]
async fn the_node_is_registered_before_the_lease_works() {
    let mut peer = Peer::start().await;
    peer.fail("POST lease", (0..20).map(|_| Fault::Code(403, 0)));
    let agent = start(&peer, quiet());
    for _ in 0..21 {
        peer.next("POST lease").await;
    }
    assert!(agent.registered.borrow().is_some());
    peer.next("PUT lease").await;
}

#[tokio::test]
async fn a_deleted_node_is_registered_again() {
    let mut peer = Peer::start().await;
    let mut agent = start(&peer, quiet());
    peer.next("WATCH node").await;
    let uid = peer.node()["metadata"]["uid"].clone();
    peer.delete_node();
    peer.next("POST node").await;
    let again = agent.registered.wait_for(|node| {
        node.as_ref().is_some_and(|node| node.metadata.uid.as_deref() != uid.as_str())
    });
    let again = again.await.unwrap().clone().unwrap();
    while peer.lease()["metadata"]["ownerReferences"][0]["uid"].as_str()
        != again.metadata.uid.as_deref()
    {
        peer.next("PUT lease").await;
    }
}

#[tokio::test]
async fn a_node_deleted_unseen_is_registered_again_when_it_is_written() {
    let mut peer = Peer::start().await;
    peer.fail("WATCH node", [Fault::Silence]);
    let agent = start(&peer, quiet());
    peer.next("WATCH node").await;
    peer.delete_node();
    agent.problems.send_replace(vec!["a reason to write".to_owned()]);
    peer.next("PATCH status").await;
    peer.next("POST node").await;
}

#[tokio::test]
async fn a_problem_is_written_at_once() {
    let mut peer = Peer::start().await;
    let agent = start(&peer, quiet());
    peer.next("WATCH node").await;
    agent.problems.send_replace(vec!["the disk is on fire".to_owned()]);
    let patch = peer.next("PATCH status").await.0.body;
    assert_eq!(condition(&patch, "Ready")["status"], "False");
    assert_eq!(condition(&patch, "Ready")["message"], "the disk is on fire");
    while peer.next("POST event").await.0.body["reason"] != "NodeNotReady" {}
}

#[tokio::test]
async fn images_are_written_when_they_change() {
    let mut peer = Peer::start().await;
    let agent = start(&peer, quiet());
    peer.next("WATCH node").await;
    let image = ContainerImage { names: Some(vec!["a@sha256:1".to_owned()]), size_bytes: Some(7) };
    agent.images.send_replace(vec![image]);
    let patch = peer.next("PATCH status").await.0.body;
    assert_eq!(patch["status"]["images"], json!([{"names": ["a@sha256:1"], "sizeBytes": 7}]));
}

#[tokio::test]
async fn what_a_controller_made_unknown_becomes_ready_again() {
    let mut peer = Peer::start().await;
    let _agent = start(&peer, quiet());
    peer.next("WATCH node").await;
    peer.change_node(|node| set_condition(node, "Ready", "Unknown"));
    peer.next("PATCH status").await;
    peer.next("PUT lease").await;
    assert_eq!(condition(&peer.node(), "Ready")["status"], "True");
}

#[tokio::test]
async fn a_status_that_does_not_change_is_not_written() {
    let mut peer = Peer::start().await;
    let _agent = start(&peer, busy());
    peer.next("WATCH node").await;
    let others = during_renewals(&mut peer, 20).await;
    assert!(!others.iter().any(|what| what == "PATCH status"), "{others:?}");
}

#[tokio::test]
async fn an_api_server_with_its_own_mind_is_not_written_to_all_the_time() {
    let mut peer = Peer::start().await;
    peer.drop_from_status("runtimeHandlers");
    let _agent = start(&peer, busy());
    peer.next("WATCH node").await;
    peer.change_node(|node| set_condition(node, "Ready", "Unknown"));
    peer.next("PATCH status").await;
    let others = during_renewals(&mut peer, 20).await;
    assert!(!others.iter().any(|what| what == "PATCH status"), "{others:?}");
}

#[tokio::test]
async fn a_status_that_was_refused_is_written_after_the_node_was_read() {
    let mut peer = Peer::start().await;
    peer.change_node(|node| *node = earlier());
    peer.fail("PATCH status", [Fault::Code(500, 0), Fault::Cut]);
    let _agent = start(&peer, quiet());
    let (_, before) = peer.next("PATCH status").await;
    assert_eq!(before.iter().filter(|what| *what == "GET node").count(), 1);
    for _ in 0..2 {
        let (_, before) = peer.next("PATCH status").await;
        assert_eq!(before.iter().filter(|what| *what == "GET node").count(), 1, "{before:?}");
    }
}

#[tokio::test]
async fn a_node_is_written_from_time_to_time_even_without_change() {
    let mut peer = Peer::start().await;
    let _agent = start(&peer, Periods { report: Duration::from_millis(4), ..busy() });
    for _ in 0..3 {
        peer.next("PATCH status").await;
    }
}

/// One that has less memory left than it should: all of it.
fn starving(periods: Periods) -> Config {
    let all = Thresholds { memory: Some(Amount::Share(1.0)), ..config(periods.clone()).eviction };
    Config { eviction: all, ..config(periods) }
}

#[tokio::test]
async fn a_node_that_starts_short_of_something_is_measured_once() {
    let mut peer = Peer::start().await;
    peer.change_node(|node| *node = earlier());
    let mut agent = start_with(&peer, starving(quiet()));
    let patch = peer.next("PATCH status").await.0.body;
    assert_eq!(condition(&patch, "MemoryPressure")["status"], "True");
    assert!(!agent.starved.borrow_and_update().is_empty());
    agent.problems.send_replace(vec!["the disk is on fire".to_owned()]);
    peer.next("PATCH status").await;
    assert!(!agent.starved.has_changed().unwrap(), "whoever evicts pods was told twice");
}

#[tokio::test]
async fn a_node_is_measured_while_the_api_server_fails() {
    let mut peer = Peer::start().await;
    let mut agent = start_with(&peer, starving(busy()));
    peer.next("WATCH node").await;
    for what in ["GET node", "PATCH status"] {
        peer.fail(what, std::iter::repeat_with(|| Fault::Code(500, 0)).take(1 << 16));
    }
    agent.problems.send_replace(vec!["the disk is on fire".to_owned()]);
    peer.next("GET node").await;
    for _ in 0..3 {
        agent.starved.changed().await.unwrap();
        peer.next("GET node").await;
    }
}

#[tokio::test]
async fn a_node_is_measured_while_the_api_server_asks_to_be_left_alone() {
    const HOUR: u32 = 3600;
    let mut peer = Peer::start().await;
    let mut agent = start_with(&peer, starving(busy()));
    peer.next("WATCH node").await;
    peer.fail("PATCH status", [Fault::Code(429, HOUR)]);
    agent.problems.send_replace(vec!["the disk is on fire".to_owned()]);
    peer.next("PATCH status").await;
    for _ in 0..3 {
        agent.starved.changed().await.unwrap();
    }
}

/// Sets the machine's clock, by so many hours.
fn set_clock(hours: i64) {
    let mut now = clock_gettime(ClockId::Realtime);
    now.tv_sec += hours * 3600;
    clock_settime(ClockId::Realtime, now).unwrap();
}

#[tokio::test]
#[ignore = "sets the machine's clock: `just test-vm` runs it in a machine of its own"]
async fn the_lease_is_renewed_on_and_later_each_time_while_the_machines_clock_is_set() {
    let mut peer = Peer::start().await;
    let _agent = start(&peer, busy());
    let mut last = Timestamp::MIN;
    // Each is renewed by the time of its own moment, or the one before where that is later.
    for hours in [0, 1, -1] {
        set_clock(hours);
        for _ in 0..5 {
            let lease = peer.next("PUT lease").await.0.body;
            let renewed: Timestamp = lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
            assert!(renewed > last, "{hours}: {renewed} after {last}");
            last = renewed;
        }
    }
    assert!(last > Timestamp::now() + SignedDuration::from_mins(50), "it was set back: {last}");
    assert_eq!(condition(&peer.node(), "Ready")["status"], "True");
}
