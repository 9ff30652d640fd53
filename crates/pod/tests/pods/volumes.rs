//! Volumes that are made of what the API server has, and that change with it while a guest runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::http::Method;
use serde_json::{Value, json};

use crate::api::{Api, Fault};
use crate::objects::holding;
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, gone, on_disk};

/// Exits with 7 once the first letter of the file `k` in the first of its mounts that has one is `2`.
pub(crate) const READS: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "k")
    (data (i32.const 16) "\20\00\00\00\01\00\00\00")
    (func (export "_start") (local $folder i32)
        ;; A subscription at 128: the monotonic clock (id 1, at 144), 20 ms from now (at 152).
        (i32.store (i32.const 144) (i32.const 1))
        (i64.store (i32.const 152) (i64.const 20000000))
        (loop $again
            (local.set $folder (i32.const 3))
            (block $found (loop $next
                (br_if $found (i32.eqz (call $open (local.get $folder) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)
                    (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 64))))
                (local.set $folder (i32.add (local.get $folder) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $folder) (i32.const 8)))
                unreachable))
            (if (call $read (i32.load (i32.const 64)) (i32.const 16) (i32.const 1) (i32.const 72))
                (then unreachable))
            (drop (call $close (i32.load (i32.const 64))))
            (if (i32.eq (i32.load8_u (i32.const 32)) (i32.const 50)) (then (call $exit (i32.const 7))))
            (drop (call $poll (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 256)))
            (br $again))))"#;

pub(crate) async fn node() -> (Api, Registry, Root) {
    (Api::start().await, Registry::start(&[("reads", READS)]).await, Root::new())
}

/// A pod whose container mounts the volume `v` at `/v`.
pub(crate) fn pod(name: &str, uid: &str, image: &str, volume: &Value) -> Value {
    let mut pod = crate::pod(name, uid);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"] = json!([{
        "name": "app", "image": image, "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    let mut volume = volume.clone();
    volume["name"] = json!("v");
    pod["spec"]["volumes"] = json!([volume]);
    pod
}

pub(crate) async fn failed_mount(api: &Api, words: &str) -> String {
    let told = api.until(words, |api| {
        let mut events = api.events().into_iter();
        events.find(|(reason, message)| reason == "FailedMount" && message.contains(words))
    });
    told.await.1
}

pub(crate) async fn running(api: &Api, name: &str) {
    api.status(name, "/phase", "Running").await;
}

pub(crate) async fn end(api: &Api, root: &Path, name: &str, uid: &str) {
    api.delete(name, 1);
    gone(root, uid).await;
}

pub(crate) fn secret_folder(root: &Path, uid: &str) -> PathBuf {
    root.join("run/volumes").join(uid)
}

#[tokio::test]
async fn a_change_of_a_config_map_is_seen_by_the_guest_that_runs() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let volume = json!({"configMap": {"name": "app", "defaultMode": 0o440}});
    api.apply(pod("web", "u1", &registry.image("reads"), &volume));
    let told = failed_mount(&api, "not found").await;
    let words = "MountVolume.SetUp failed for volume \"v\" : configmap \"app\" not found";
    assert_eq!(told, words);
    api.put("configmaps", holding("app", &json!({"k": "1"})));
    running(&api, "web").await;
    let file = root.path().join("pods/u1/volumes/kubernetes.io~configmap/v/k");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o440);
    // Neither an object that goes nor an API server that does takes anything away.
    api.take("configmaps", "app");
    failed_mount(&api, "not found").await;
    assert_eq!(api.pod("web").unwrap()["status"]["phase"], "Running");
    api.put("configmaps", holding("app", &json!({"k": "2"})));
    let told = api.status("web", "/phase", "Failed").await;
    let ended = &told["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 7);
    end(&api, root.path(), "web", "u1").await;
}

#[tokio::test]
async fn a_part_of_a_config_map_stays_as_it_was_when_its_container_started() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("configmaps", holding("app", &json!({"k": "1"})));
    let volume = json!({"configMap": {"name": "app"}});
    let mut web = pod("web", "u1", &registry.image("reads"), &volume);
    web["spec"]["restartPolicy"] = json!("Always");
    let mut part = web["spec"]["containers"][0].clone();
    part["name"] = json!("part");
    part["volumeMounts"] = json!([{"name": "v", "mountPath": "/v/k", "subPath": "k"}]);
    web["spec"]["containers"].as_array_mut().unwrap().push(part);
    api.apply(web);
    let status = |api: &Api, place: usize| {
        api.pod("web").unwrap()["status"]["containerStatuses"][place].clone()
    };
    let run = |api: &Api| {
        let runs = |place| !status(api, place)["state"]["running"].is_null();
        (runs(0) && runs(1)).then_some(())
    };
    api.until("both to run", run).await;
    api.put("configmaps", holding("app", &json!({"k": "2"})));
    // The other one sees it, in its next run too: by then this one has looked again.
    let waits = |api: &Api| {
        let state = &status(api, 0)["state"];
        (state["waiting"]["reason"] == "CrashLoopBackOff").then_some(())
    };
    api.until("the whole to be seen", waits).await;
    assert_eq!(status(&api, 0)["lastState"]["terminated"]["exitCode"], 7);
    let part = status(&api, 1);
    assert!(!part["state"]["running"].is_null() && part["restartCount"] == 0, "{part}");
    end(&api, root.path(), "web", "u1").await;
}

#[tokio::test]
async fn a_secret_lies_apart_for_its_owner_alone_and_goes_with_its_pod() {
    let (api, registry, root) = node().await;
    let stale = secret_folder(root.path(), "u0");
    fs::create_dir_all(stale.join("v")).unwrap();
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("secrets", holding("key", &json!({"k": "MQ=="})));
    let volume = json!({"secret": {"secretName": "key"}});
    api.apply(pod("web", "u1", &registry.image("reads"), &volume));
    running(&api, "web").await;
    assert!(!stale.exists(), "what an earlier agent left is swept");
    let folder = secret_folder(root.path(), "u1");
    assert_eq!(fs::read_to_string(folder.join("v/k")).unwrap(), "1");
    let mode = fs::metadata(root.path().join("run/volumes")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    end(&api, root.path(), "web", "u1").await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_volume_that_must_be_written_again_is_so_by_the_next_agent() {
    let (api, registry, root) = node().await;
    let first = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("configmaps", holding("app", &json!({"k": "1"})));
    let volume = json!({"configMap": {"name": "app"}});
    api.apply(pod("web", "u1", &registry.image("reads"), &volume));
    running(&api, "web").await;
    drop(first);
    // It was killed before the links, and in the middle of a new content.
    let folder = root.path().join("pods/u1/volumes/kubernetes.io~configmap/v");
    fs::remove_file(folder.join("k")).unwrap();
    fs::create_dir(folder.join("..2020_01_01_00_00_00.1")).unwrap();
    std::os::unix::fs::symlink("..data/k", folder.join("k")).unwrap();
    api.put("configmaps", holding("app", &json!({"k": "2"})));
    let _second = Agent::with(&api, root.path(), &[&registry.host]).await;
    let told = api.status("web", "/phase", "Failed").await;
    let ended = &told["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 7);
    assert!(!folder.join("..2020_01_01_00_00_00.1").exists());
    end(&api, root.path(), "web", "u1").await;
}

/// The volume that the API server adds to every pod.
fn access() -> Value {
    json!({"projected": {"sources": [
        {"serviceAccountToken": {"path": "k", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}})
}

#[tokio::test]
async fn a_pod_gets_the_api_servers_address_card_with_a_token_of_its_own() {
    let (api, registry, root) = node().await;
    for fault in [Fault::Code(500), Fault::Cut] {
        api.fail(Method::POST, "/token", fault);
    }
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("configmaps", holding("kube-root-ca.crt", &json!({"ca.crt": "PEM"})));
    api.apply(pod("web", "u1", &registry.image("reads"), &access()));
    failed_mount(&api, "failed to fetch token").await;
    running(&api, "web").await;
    let folder = secret_folder(root.path(), "u1").join("v");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!((read("ca.crt").as_str(), read("namespace").as_str()), ("PEM", "default"));
    assert!(read("k").starts_with("1 token"), "{}", read("k"));
    let (path, asked) = api.requests(&Method::POST, "/token").pop().unwrap();
    assert!(path.starts_with("/api/v1/namespaces/default/serviceaccounts/default/token"), "{path}");
    assert_eq!(asked["spec"]["expirationSeconds"], 3607);
    assert_eq!(asked["spec"]["audiences"], json!([]));
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1"});
    assert_eq!(asked["spec"]["boundObjectRef"], bound);
    end(&api, root.path(), "web", "u1").await;
}

#[tokio::test]
async fn a_token_that_is_refused_until_the_pod_is_known_there_is_no_failed_mount() {
    let (api, registry, root) = node().await;
    for code in [404, 403] {
        api.fail(Method::POST, "/token", Fault::Code(code));
    }
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("configmaps", holding("kube-root-ca.crt", &json!({"ca.crt": "PEM"})));
    api.apply(pod("web", "u1", &registry.image("reads"), &access()));
    running(&api, "web").await;
    assert_eq!(api.requests(&Method::POST, "/token").len(), 3);
    assert!(api.events().iter().all(|(reason, _)| reason != "FailedMount"));
    end(&api, root.path(), "web", "u1").await;
}

#[tokio::test]
async fn a_token_that_ages_is_renewed_under_the_running_guest() {
    let (api, registry, root) = node().await;
    // The next one begins with `2`, which ends the guest.
    api.tokens_live(1);
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("configmaps", holding("kube-root-ca.crt", &json!({"ca.crt": "PEM"})));
    api.apply(pod("web", "u1", &registry.image("reads"), &access()));
    running(&api, "web").await;
    let told = api.status("web", "/phase", "Failed").await;
    let ended = &told["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 7);
    assert_eq!(api.requests(&Method::POST, "/token").len(), 2);
    end(&api, root.path(), "web", "u1").await;
}

fn claim(phase: &str) -> Value {
    json!({"metadata": {"name": "data", "namespace": "default"},
        "spec": {"volumeName": "pv1"}, "status": {"phase": phase}})
}

#[tokio::test]
async fn a_claim_is_waited_for_and_leads_to_its_volumes_folder() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let volume = json!({"persistentVolumeClaim": {"claimName": "data"}});
    api.apply(pod("web", "u1", &registry.image("reads"), &volume));
    failed_mount(&api, "persistentvolumeclaims \"data\" not found").await;
    api.put("persistentvolumeclaims", claim("Pending"));
    let told = failed_mount(&api, "PVC is not bound").await;
    assert!(told.starts_with("Unable to attach or mount volumes: unmounted volumes=[v]"), "{told}");
    let folder = root.path().join("disk");
    let volume = |source: Value| {
        let mut volume = json!({"metadata": {"name": "pv1", "namespace": ""}, "spec": {}});
        volume["spec"] = source;
        volume
    };
    api.put(
        "persistentvolumes",
        volume(json!({"csi": {"driver": "ebs.csi", "volumeHandle": "h"}})),
    );
    api.put("persistentvolumeclaims", claim("Bound"));
    let told = failed_mount(&api, "CSI driver ebs.csi is not supported").await;
    assert!(told.starts_with("MountVolume.SetUp failed for volume \"pv1\" : "), "{told}");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("k"), "1").unwrap();
    api.put("persistentvolumes", volume(json!({"local": {"path": folder.to_str().unwrap()}})));
    running(&api, "web").await;
    end(&api, root.path(), "web", "u1").await;
    assert!(folder.join("k").exists(), "what is in it is nobody's to remove");
}

#[tokio::test]
async fn a_part_of_a_volume_is_made_and_mounted_and_none_outside_is() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut web = pod("web", "u1", &registry.image("reads"), &json!({"emptyDir": {}}));
    let container = &mut web["spec"]["containers"][0];
    container["env"] =
        json!([{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    container["volumeMounts"][0]["subPathExpr"] = json!("logs/$(NAME)");
    api.apply(web);
    let made = root.path().join("pods/u1/volumes/kubernetes.io~empty-dir/v/logs/web");
    on_disk("the part", || made.is_dir()).await;
    end(&api, root.path(), "web", "u1").await;

    let disk = root.path().join("disk");
    fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink("..", disk.join("up")).unwrap();
    let volume = json!({"hostPath": {"path": disk.to_str().unwrap(), "type": "Directory"}});
    let mut out = pod("out", "u2", &registry.image("reads"), &volume);
    out["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = json!("up/logs");
    api.apply(out);
    let told = api.status("out", crate::REASON, "CreateContainerConfigError").await;
    let message = &told["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let said = "failed to prepare subPath for volumeMount \"v\" of container \"app\": up/logs leads out of its volume";
    assert_eq!(message, said);
    end(&api, root.path(), "out", "u2").await;
}
