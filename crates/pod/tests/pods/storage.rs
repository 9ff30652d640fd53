//! Pods that use the disk: real containers, measured and evicted.

use std::path::Path;

use axum::http::Method;
use serde_json::{Value, json};

use crate::api::{Api, Fault};
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, gone, on_disk};

/// Writes up to 1 MiB to a file in its first mount or to standard output, waits for the end of standard input, then does
/// `$last`.
fn guest(target: &str, last: &str) -> String {
    let open = "(call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1) \
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 64))";
    let target = match target {
        "file" => {
            format!("(if {open} (then unreachable)) (local.set $fd (i32.load (i32.const 64)))")
        }
        _ => "(local.set $fd (i32.const 1))".to_owned(),
    };
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 17)
        (data (i32.const 0) "full")
        (data (i32.const 16) "\00\00\01\00\00\00\10\00")
        (data (i32.const 32) "\30\00\00\00\08\00\00\00")
        (func (export "_start") (local $fd i32)
            {target}
            (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
            (if (call $write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 68)) (then unreachable))
            (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 72)))
            {last}))"#
    )
}

/// A node whose registry has the guests `file`, `log` and `deaf`, which does not end when it is told to.
async fn node() -> (Api, Registry, Root) {
    let (file, log, deaf) =
        (guest("file", ""), guest("log", ""), guest("file", "(loop $on (br $on))"));
    let registry = Registry::start(&[("file", &file), ("log", &log), ("deaf", &deaf)]).await;
    (Api::start().await, registry, Root::new())
}

fn container(name: &str, image: &str, limit: Option<&str>) -> Value {
    let limits = limit.map_or(json!({}), |limit| json!({"ephemeral-storage": limit}));
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "stdin": true,
        "resources": {"limits": limits},
    })
}

fn pod(name: &str, uid: &str, containers: &Value) -> Value {
    let mut pod = crate::pod(name, uid);
    pod["spec"]["containers"] = containers.clone();
    pod
}

/// A pod with one container and a volume of this size at most.
fn with_volume(name: &str, uid: &str, image: &str, size: &str) -> Value {
    let mut pod = pod(name, uid, &json!([container("app", image, None)]));
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {"sizeLimit": size}}]);
    pod
}

const OVER: &str = "Usage of EmptyDir volume \"data\" exceeds the limit \"16Ki\". ";

/// Waits for what the API server is told of an evicted pod, and checks it.
async fn evicted(api: &Api, name: &str, message: &str) -> Value {
    let told = api.status(name, "/reason", "Evicted").await;
    let status = &told["status"];
    assert_eq!((&status["phase"], &status["message"]), (&json!("Failed"), &json!(message)));
    let conditions = status["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["type"] != "DisruptionTarget"));
    assert!(conditions.iter().any(|known| known["type"] == "Ready" && known["status"] == "False"));
    told
}

#[tokio::test]
async fn a_volume_over_its_size_limit_ends_its_pod_and_no_other() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.apply(with_volume("small", "u1", &registry.image("file"), "16Ki"));
    api.apply(with_volume("large", "u2", &registry.image("file"), "64Mi"));
    let told = evicted(&api, "small", OVER).await;
    // It was stopped, not only killed: it had its grace.
    let end = &told["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(0), &json!("Completed")), "{told:#}");
    let event =
        api.until("event", |api| api.events().into_iter().find(|(reason, _)| reason == "Evicted"));
    assert_eq!(event.await.1, OVER);
    on_disk("the volume goes", || !root.path().join("pods/u1/volumes").exists()).await;
    assert!(root.path().join("pods/u1/record.json").exists(), "until it is deleted");
    assert_eq!(api.pod("large").unwrap()["status"]["phase"], "Running");
    for (name, uid) in [("small", "u1"), ("large", "u2")] {
        api.delete(name, 1);
        gone(root.path(), uid).await;
    }
}

#[tokio::test]
async fn a_log_over_its_containers_limit_ends_the_pod() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let log = registry.image("log");
    let containers =
        json!([container("loud", &log, Some("16Ki")), container("rich", &log, Some("1Gi"))]);
    api.apply(pod("web", "u1", &containers));
    evicted(&api, "web", "Container loud exceeded its local ephemeral storage limit \"16Ki\". ")
        .await;
    api.delete("web", 1);
    gone(root.path(), "u1").await;
}

#[tokio::test]
async fn what_a_container_writes_over_its_images_files_counts_for_its_limit() {
    let (api, root) = (Api::start().await, Root::new());
    let config = json!({"Cmd": ["/bin/guest.wasm"]});
    let registry = Registry::rooted("file", &guest("file", ""), &config).await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.apply(pod("web", "u1", &json!([container("app", &registry.image("file"), Some("64Ki"))])));
    evicted(
        &api,
        "web",
        "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. ",
    )
    .await;
    api.delete("web", 1);
    gone(root.path(), "u1").await;
}

#[tokio::test]
async fn an_eviction_outlives_its_agent() {
    let (api, registry, root) = node().await;
    let first = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.apply(with_volume("small", "u1", &registry.image("deaf"), "16Ki"));
    let record = root.path().join("pods/u1/record.json");
    let recorded = |record: &Path| std::fs::read_to_string(record).unwrap_or_default();
    on_disk("recorded", || recorded(&record).contains("\"reason\":\"Evicted\"")).await;
    // The guest is deaf: it still runs, and nothing has been told.
    drop(first);
    assert_ne!(api.pod("small").unwrap()["status"]["phase"], "Failed");
    // What made the pod exceed its limit is gone when the next agent looks.
    std::fs::remove_file(root.path().join("pods/u1/volumes/kubernetes.io~empty-dir/data/full"))
        .unwrap();
    api.fail(Method::PATCH, "/pods/small/status", Fault::Code(500));
    let _second = Agent::with(&api, root.path(), &[&registry.host]).await;
    let told = evicted(&api, "small", OVER).await;
    let end = &told["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["exitCode"], 137, "{told:#}");
    assert_eq!(told["status"]["containerStatuses"][0]["restartCount"], 0);
    api.delete("small", 1);
    gone(root.path(), "u1").await;
}

#[tokio::test]
async fn a_log_is_linked_for_collectors_until_its_pod_is_gone() {
    let (api, registry, root) = node().await;
    // Of a pod that ended while no agent was there.
    let (links, stale) = (root.path().join("containers"), root.path().join("containers/old.log"));
    std::fs::create_dir(&links).unwrap();
    std::os::unix::fs::symlink(root.path().join("logs/default_old_u0/app/0.log"), &stale).unwrap();
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.apply(pod("web", "u1", &json!([container("app", &registry.image("log"), None)])));
    let told = api.until("a container", |api| {
        let id = api.pod("web")?.pointer("/status/containerStatuses/0/containerID")?.clone();
        Some(id.as_str()?.strip_prefix("nodule://")?.to_owned())
    });
    let link = links.join(format!("web_default_app-{}.log", told.await));
    on_disk("the log", || {
        std::fs::read_to_string(&link).is_ok_and(|log| log.contains(" stdout P aaa"))
    })
    .await;
    assert!(!stale.is_symlink(), "swept");
    api.delete("web", 1);
    gone(root.path(), "u1").await;
    assert!(!link.is_symlink() && !root.path().join("logs/default_web_u1").exists());
}
