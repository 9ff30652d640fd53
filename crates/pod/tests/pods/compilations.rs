//! Images that are compiled, and what is told of it.

use serde_json::json;

use crate::api::Api;
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, REASON};

const COMMAND: &str = r#"(module (func (export "_start")))"#;

/// Serves HTTP in name only.
const PROXY: &str = r#"(component
    (core module $m (func (export "run") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $exports (export "run" (func $run)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $exports)))"#;

async fn node() -> (Api, Registry, Root) {
    let registry =
        Registry::start(&[("command", COMMAND), ("proxy", PROXY), ("bad", "(module)")]).await;
    (Api::start().await, registry, Root::new())
}

fn apply(api: &Api, name: &str, image: &str) {
    let mut pod = crate::pod(name, name);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"][0]["image"] = json!(image);
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    api.apply(pod);
}

fn compiled(api: &Api) -> Vec<String> {
    let events = api.events().into_iter();
    events.filter(|(reason, _)| reason == "Compiled").map(|(_, message)| message).collect()
}

#[tokio::test]
async fn a_compilation_is_told_when_there_is_one() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let image = registry.image("command");

    apply(&api, "first", &image);
    api.status("first", "/phase", "Succeeded").await;
    let told = api.until("Compiled", |api| compiled(api).first().cloned()).await;
    assert!(told.starts_with(&format!("Compiled image \"{image}\" in ")), "{told}");
    assert!(told.ends_with(" bytes of code"), "{told}");

    apply(&api, "second", &image);
    api.status("second", "/phase", "Succeeded").await;
    // Events are posted in order: this one comes after what could be said of a compilation.
    let created = |api: &Api| api.events().iter().filter(|(reason, _)| reason == "Created").count();
    api.until("Created", |api| (created(api) == 2).then_some(())).await;
    assert_eq!(compiled(&api).len(), 1);
}

#[tokio::test]
async fn a_program_that_cannot_run_here_is_told_with_its_image_and_the_remedy() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    apply(&api, "bad", &registry.image("bad"));
    let pod = api.status("bad", REASON, "CreateContainerError").await;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let message = waiting["message"].as_str().unwrap();
    assert!(message.contains(&registry.image("bad")), "{message}");
    assert!(message.contains("build a command for the target wasm32-wasip1"), "{message}");
    assert_eq!(compiled(&api), Vec::<String>::new());
}

#[tokio::test]
async fn a_program_that_serves_http_is_started_as_one() {
    let (api, registry, root) = node().await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    apply(&api, "proxy", &registry.image("proxy"));
    api.until("container.json", |_| {
        let file = root.path().join("pods/proxy/containers/app/0/container.json");
        let text = std::fs::read(file).ok()?;
        let container: serde_json::Value = serde_json::from_slice(&text).ok()?;
        (container["program"]["kind"] == "proxy").then_some(())
    })
    .await;
}
