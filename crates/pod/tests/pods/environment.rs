//! What guests find in their environment: read from the API server, awaited, and told where it is missing.

use std::fs;
use std::path::{Path, PathBuf};

use axum::http::Method;
use nodule_sandbox_proto::CONTAINER;
use serde_json::{Value, json};

use crate::api::{Api, Fault};
use crate::objects::holding;
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, REASON, gone, on_disk};

const GUEST: &str = r#"(module (func (export "_start") (loop $on (br $on))))"#;
const MESSAGE: &str = "/containerStatuses/0/state/waiting/message";

async fn node() -> (Api, Registry, Root) {
    (Api::start().await, Registry::start(&[("guest", GUEST)]).await, Root::new())
}

fn pod(name: &str, uid: &str, image: &str, env: &Value) -> Value {
    let mut pod = crate::pod(name, uid);
    pod["spec"]["containers"] =
        json!([{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent", "env": env}]);
    pod
}

fn refers(kind: &str, name: &str, key: &str) -> Value {
    json!([{"name": "X", "valueFrom": {kind: {"name": name, "key": key}}}])
}

/// The first `container.json` below a folder.
pub(crate) fn container_file(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            container_file(&path)
        } else {
            path.ends_with(CONTAINER).then_some(path)
        }
    })
}

/// What the pod's container is told.
async fn told(root: &Path, uid: &str) -> Value {
    let folder = root.join("pods").join(uid);
    on_disk("container.json", || container_file(&folder).is_some()).await;
    serde_json::from_slice(&fs::read(container_file(&folder).unwrap()).unwrap()).unwrap()
}

fn variable(told: &Value, name: &str) -> Option<String> {
    let all = told["env"].as_array().unwrap();
    Some(all.iter().find(|pair| pair[0] == name)?[1].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_container_waits_for_what_it_refers_to_and_starts_once_it_is_there() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let env = refers("configMapKeyRef", "app", "colour");
    api.apply(pod("web", "u1", &registry.image("guest"), &env));
    let held = api.status("web", REASON, "CreateContainerConfigError").await;
    assert_eq!(held.pointer(&format!("/status{MESSAGE}")).unwrap(), "configmap \"app\" not found");
    api.until("event", |api| {
        let told = "Error: configmap \"app\" not found";
        api.events().into_iter().find(|(reason, message)| reason == "Failed" && message == told)
    })
    .await;
    api.put("configmaps", holding("app", &json!({"shape": "round"})));
    api.status("web", MESSAGE, "couldn't find key colour in ConfigMap default/app").await;
    api.put("configmaps", holding("app", &json!({"colour": "green"})));
    api.status("web", "/phase", "Running").await;
    assert_eq!(variable(&told(root.path(), "u1").await, "X").as_deref(), Some("green"));
    api.delete("web", 1);
    gone(root.path(), "u1").await;
}

#[tokio::test]
async fn an_object_is_asked_for_by_its_name_alone_and_only_while_a_pod_refers_to_it() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("secrets", holding("key", &json!({"k": "dg=="})));
    let image = registry.image("guest");
    for (name, uid) in [("one", "u1"), ("two", "u2")] {
        api.apply(pod(name, uid, &image, &refers("secretKeyRef", "key", "k")));
        api.status(name, "/phase", "Running").await;
        assert_eq!(variable(&told(root.path(), uid).await, "X").as_deref(), Some("v"));
    }
    let asked = |api: &Api| api.requests(&Method::GET, "/secrets");
    assert_eq!(asked(&api).len(), 2, "one list and one watch for both pods");
    for (path, _) in asked(&api) {
        assert!(path.starts_with("/api/v1/namespaces/default/secrets?"), "{path}");
        assert!(path.contains("fieldSelector=metadata.name%3Dkey"), "{path}");
    }
    for (name, uid) in [("one", "u1"), ("two", "u2")] {
        api.delete(name, 1);
        gone(root.path(), uid).await;
    }
    // It was forgotten: the next pod asks again.
    api.apply(pod("three", "u3", &image, &refers("secretKeyRef", "key", "k")));
    api.status("three", "/phase", "Running").await;
    assert_eq!(asked(&api).len(), 4);
    api.delete("three", 1);
    gone(root.path(), "u3").await;
}

#[tokio::test]
async fn an_immutable_object_is_read_once_and_not_watched() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut map = holding("fixed", &json!({"k": "v"}));
    map["immutable"] = json!(true);
    api.put("configmaps", map);
    let image = registry.image("guest");
    for (name, uid) in [("one", "u1"), ("two", "u2")] {
        api.apply(pod(name, uid, &image, &refers("configMapKeyRef", "fixed", "k")));
        api.status(name, "/phase", "Running").await;
    }
    let watches = api.requests(&Method::GET, "/configmaps");
    assert!(watches.iter().all(|(path, _)| !path.contains("watch=true")), "{watches:?}");
    for (name, uid) in [("one", "u1"), ("two", "u2")] {
        api.delete(name, 1);
        gone(root.path(), uid).await;
    }
}

#[tokio::test]
async fn an_object_that_the_api_server_is_slow_to_give_holds_nobody_else_and_is_not_missed() {
    let (api, registry, root) = node().await;
    for fault in [Fault::Code(403), Fault::Cut, Fault::Code(500)] {
        api.fail(Method::GET, "/configmaps", fault);
    }
    api.fail(Method::GET, "name%3Dmute", Fault::Silence);
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.put("configmaps", holding("app", &json!({"k": "v"})));
    let image = registry.image("guest");
    api.apply(pod("late", "u1", &image, &refers("configMapKeyRef", "app", "k")));
    api.status("late", "/phase", "Running").await;
    api.apply(pod("mute", "u2", &image, &refers("configMapKeyRef", "mute", "k")));
    api.status("mute", REASON, "ContainerCreating").await;
    // Its turn is not held up: it can be told to end.
    for (name, uid) in [("late", "u1"), ("mute", "u2")] {
        api.delete(name, 1);
        gone(root.path(), uid).await;
    }
    let refused = |(reason, _): &(String, String)| reason == "Failed";
    assert!(!api.events().iter().any(refused), "{:?}", api.events());
}

#[tokio::test]
async fn an_object_that_the_node_may_not_read_is_told() {
    let (api, registry, root) = node().await;
    for _ in 0..8 {
        api.fail(Method::GET, "/secrets", Fault::Code(403));
    }
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let env = refers("secretKeyRef", "key", "k");
    api.apply(pod("web", "u1", &registry.image("guest"), &env));
    api.status("web", MESSAGE, "as the test asked").await;
    api.put("secrets", holding("key", &json!({"k": "dg=="})));
    api.status("web", "/phase", "Running").await;
    api.delete("web", 1);
    gone(root.path(), "u1").await;
}

#[tokio::test]
async fn services_are_listed_before_a_container_starts_and_told_in_its_environment() {
    let (api, registry, root) = node().await;
    for _ in 0..3 {
        api.fail(Method::GET, "/api/v1/services", Fault::Code(500));
    }
    let service = json!({"metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]}});
    api.put("services", service);
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let env = json!([{"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)"}]);
    api.apply(pod("web", "u1", &registry.image("guest"), &env));
    api.status("web", "/phase", "Running").await;
    let told = told(root.path(), "u1").await;
    assert_eq!(variable(&told, "URL").as_deref(), Some("https://10.0.0.1"));
    assert_eq!(variable(&told, "KUBERNETES_PORT").as_deref(), Some("tcp://10.0.0.1:443"));
    api.delete("web", 1);
    gone(root.path(), "u1").await;
}

#[tokio::test]
async fn a_guests_configuration_is_read_from_a_config_map() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut pod = pod("web", "u1", &registry.image("guest"), &json!([]));
    pod["metadata"]["annotations"] =
        json!({"config.nodule.dev/from": "app", "config.nodule.dev/b": "own"});
    api.apply(pod);
    api.status("web", MESSAGE, "configmap \"app\" not found").await;
    api.put("configmaps", holding("app", &json!({"a": "1", "b": "2"})));
    let told = told(root.path(), "u1").await;
    assert_eq!(told["config"], json!({"a": "1", "b": "own"}));
    api.delete("web", 1);
    gone(root.path(), "u1").await;
}
