//! Programs: those that cannot run here, and what those that can are told.

use std::fs;

use serde_json::{Value, json};

use crate::api::Api;
use crate::environment::container_file;
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, REASON};

const STRANGER: &str = r#"(component
    (import "wasi:keyvalue/store@0.2.0-draft" (instance))
    (import "acme:shop/stock@1.2.0" (instance))
    (import "wasi:cli/environment@0.2.0" (instance))
    (core module $m (func (export "run") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $exports (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $exports)))"#;

#[tokio::test]
async fn a_component_that_imports_what_is_not_here_never_starts_and_each_import_is_named() {
    let (api, root) = (Api::start().await, Root::new());
    let registry = Registry::start(&[("stranger", STRANGER)]).await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut pod = crate::pod("stranger", "u1");
    pod["spec"]["containers"] = json!([{
        "name": "app", "image": registry.image("stranger"), "imagePullPolicy": "IfNotPresent"}]);
    api.apply(pod);
    let told = api.status("stranger", REASON, "CreateContainerError").await;
    let status = &told["status"]["containerStatuses"][0];
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    for import in ["`wasi:keyvalue/store@0.2.0-draft`", "`acme:shop/stock@1.2.0`"] {
        assert!(message.contains(import), "{message}");
    }
    assert!(!message.contains("wasi:cli/environment"), "{message}");
    assert_eq!((&status["restartCount"], &status["started"]), (&json!(0), &json!(false)));
}

#[tokio::test]
async fn a_guest_is_told_of_its_network_and_its_configuration() {
    let (api, root) = (Api::start().await, Root::new());
    let guest = r#"(module (func (export "_start") (loop $on (br $on))))"#;
    let registry = Registry::start(&[("guest", guest)]).await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut pod = crate::pod("told", "u1");
    pod["metadata"]["annotations"] = json!({"config.nodule.dev/greeting": "hello"});
    pod["spec"]["dnsPolicy"] = json!("None");
    pod["spec"]["dnsConfig"] = json!({"nameservers": ["198.51.100.1"], "searches": ["lan"]});
    pod["spec"]["hostAliases"] = json!([{"ip": "198.51.100.2", "hostnames": ["db"]}]);
    pod["spec"]["containers"] = json!([{
        "name": "app", "image": registry.image("guest"), "imagePullPolicy": "IfNotPresent"}]);
    api.apply(pod);
    let pods = root.path().to_owned();
    let file = api.until("container.json", move |_| container_file(&pods)).await;
    let told: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(told["config"], json!({"greeting": "hello"}));
    assert_eq!(told["net"]["deny"], json!(["192.0.2.0/24"]));
    let names = &told["net"]["names"];
    assert_eq!(names["servers"], json!(["198.51.100.1:53"]));
    assert_eq!(names["search"], json!(["lan"]));
    let last = names["hosts"].as_array().unwrap().last().unwrap();
    assert_eq!(last, &json!({"address": "198.51.100.2", "names": ["db"]}));
    let node_only =
        names["hosts"].as_array().unwrap().iter().find(|host| host["names"][0] == "told");
    assert_eq!(node_only.unwrap()["address"], "127.0.0.1", "its own name is the pod's address");
    let etc = root.path().join("pods/u1/etc");
    let mounts = told["mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["guest"] == "/etc").unwrap();
    assert_eq!((&mount["host"], &mount["access"]), (&json!(etc), &json!("ReadOnly")));
    let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap();
    assert!(read("hosts").ends_with("# Entries added by HostAliases.\n198.51.100.2\tdb\n"));
    assert_eq!(read("resolv.conf"), "search lan\nnameserver 198.51.100.1\n");
    assert_eq!(read("hostname"), "told\n");
    api.delete("told", 1);
    api.until("removal", |api| api.pod("told").is_none().then_some(())).await;
}
