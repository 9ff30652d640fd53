//! Images of files: what a guest sees of them, and what of it it may change.

use serde_json::{Value, json};

use crate::Agent;
use crate::api::Api;
use crate::guests::writes;
use crate::registry::Registry;
use crate::volumes::READS;

/// WASI's `oflags`: nothing, so that the file must be there; and one that makes it, if it is not.
const THERE: u8 = 0;
const MAKE: u8 = 9;

/// Runs one container to its end; its terminated state.
async fn run(guest: &str, config: Value, container: Value) -> Value {
    let (api, root) = (Api::start().await, crate::root::Root::new());
    let registry = Registry::rooted("app", guest, &config).await;
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut pod = crate::pod("web", "u1");
    pod["spec"]["restartPolicy"] = json!("Never");
    let mut spec = json!({"name": "app", "image": registry.image("app"),
                          "imagePullPolicy": "IfNotPresent"});
    spec.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    pod["spec"]["containers"] = json!([spec]);
    api.apply(pod);
    let ended = "/containerStatuses/0/state";
    let told = api
        .until("an end", |api| {
            let told = api.pod("web")?["status"].pointer(ended)?.clone();
            let waits = told["waiting"]["reason"] == "CreateContainerError";
            (waits || !told["terminated"].is_null()).then_some(told)
        })
        .await;
    api.delete("web", 1);
    api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    told
}

#[tokio::test]
async fn a_guest_sees_its_images_files_and_changes_only_its_own_copy() {
    let entrypoint = json!({"Entrypoint": ["guest.wasm"], "WorkingDir": "/etc"});
    for (name, flags) in [("etc/motd", THERE), ("new", MAKE)] {
        let told = run(&writes(name, flags, "words", 7), entrypoint.clone(), json!({})).await;
        assert_eq!(told["terminated"]["exitCode"], 7, "{name}: {told}");
    }
}

#[tokio::test]
async fn a_read_only_root_is_not_changed() {
    let entrypoint = json!({"Cmd": ["/bin/guest.wasm"]});
    let container = json!({"securityContext": {"readOnlyRootFilesystem": true}});
    // What cannot be opened for writing is waited for: standard input is at its end.
    let told = run(&writes("etc/motd", THERE, "words", 7), entrypoint, container).await;
    assert_eq!(told["terminated"]["exitCode"], 0, "{told}");
}

#[tokio::test]
async fn the_nodes_files_lie_beside_those_that_the_image_has() {
    let open = |length: usize| format!("(i32.const 0) (i32.const {length}) (i32.const 0)");
    for (name, first) in [("etc/hosts", b'#'), ("etc/hostname", b'w'), ("etc/motd", b'h')] {
        let guest = READS.replace("\"k\"", &format!("\"{name}\""));
        let guest = guest.replace(&open(1), &open(name.len()));
        let guest = guest.replace("(i32.const 50)", &format!("(i32.const {first})"));
        for context in [json!({}), json!({"readOnlyRootFilesystem": true})] {
            let container = json!({"securityContext": context});
            let told = run(&guest, json!({"Cmd": ["/bin/guest.wasm"]}), container).await;
            assert_eq!(told["terminated"]["exitCode"], 7, "{name}: {told}");
        }
    }
    let hosts = writes("etc/hosts", THERE, "words", 7);
    let told = run(&hosts, json!({"Cmd": ["/bin/guest.wasm"]}), json!({})).await;
    assert_eq!(told["terminated"]["exitCode"], 0, "{told}");
}

#[tokio::test]
async fn the_containers_command_says_which_file_is_the_program() {
    let guest = writes("etc/motd", THERE, "words", 7);
    let command =
        json!({"command": ["/bin/$(NAME).wasm"], "env": [{"name": "NAME", "value": "guest"}]});
    assert_eq!(run(&guest, json!({}), command).await["terminated"]["exitCode"], 7);
    for (container, word) in [
        (json!({}), "name it in the container's command"),
        (json!({"command": ["/bin/none"]}), "no program \"/bin/none\""),
        (json!({"command": ["/etc/motd"]}), "is unknown data"),
    ] {
        let told = run(&guest, json!({}), container).await;
        let message = told["waiting"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{told}");
    }
}
