//! Images that are volumes: what a guest finds in them, that it changes nothing there, and that they stay what they were.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::Agent;
use crate::api::Api;
use crate::guests::{WAITS, writes};
use crate::registry::Registry;
use crate::root::Root;
use crate::volumes::READS;

/// WASI's `oflags`: the file must be there; it is made, if it is not.
const THERE: u8 = 0;
const MAKE: u8 = 9;

async fn registry() -> Registry {
    let (there, make) = (writes("k", THERE, "3", 7), writes("new", MAKE, "3", 7));
    let guests = [("reads", READS), ("there", &*there), ("make", &*make), ("waits", WAITS)];
    Registry::with_model(&guests, &[("k", b"2"), ("deep/er/k", b"2")]).await
}

/// A pod whose container mounts the artifact with what `mount` says.
fn pod(registry: &Registry, guest: &str, mount: &Value) -> Value {
    let mut pod = crate::pod("web", "u1");
    let mut one = json!({"name": "model", "mountPath": "/v"});
    one.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"] = json!([{
        "name": "app", "image": registry.image(guest), "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [one]}]);
    let image = json!({"reference": registry.image("model"), "pullPolicy": "IfNotPresent"});
    pod["spec"]["volumes"] = json!([{"name": "model", "image": image}]);
    pod
}

/// How many mounts of images were asked for, made, and not made.
fn mounts_counted(agent: &Agent) -> [u64; 3] {
    ["requested", "mounted_succeed", "mounted_errors"].map(|what| {
        agent.counted(&format!("kubelet_image_volume_{what}_total")).expect("it is always shown")
    })
}

/// Runs a guest to its end; its exit code, and the status of its container.
async fn run(guest: &str, mount: &Value) -> (i64, Value) {
    let (api, registry, root) = (Api::start().await, registry().await, Root::new());
    let agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.apply(pod(&registry, guest, mount));
    let told = api.until("an end", |api| {
        let status = api.pod("web")?["status"]["containerStatuses"][0].clone();
        let code = status["state"]["terminated"]["exitCode"].as_i64()?;
        Some((code, status))
    });
    let told = told.await;
    assert_eq!(mounts_counted(&agent), [1, 1, 0]);
    let requests = agent.requests("ifnotpresent", "false", "true");
    assert_eq!(requests, Some(2), "the guest and the model");
    api.delete("web", 1);
    api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    told
}

#[tokio::test]
async fn a_guest_reads_the_files_of_an_artifact_and_its_status_says_which_it_is() {
    let (code, status) = run("reads", &json!({})).await;
    assert_eq!(code, 7);
    let mount = &status["volumeMounts"][0];
    assert_eq!((&mount["name"], &mount["mountPath"]), (&json!("model"), &json!("/v")));
    let image = mount["volumeStatus"]["image"]["imageRef"].as_str().unwrap();
    assert!(image.contains("/model@sha256:"), "{image}");
}

#[tokio::test]
async fn a_part_of_an_artifact_is_mounted_by_its_path() {
    assert_eq!(run("reads", &json!({"subPath": "deep/er"})).await.0, 7);
    assert_eq!(run("reads", &json!({"subPathExpr": "deep/er", "readOnly": false})).await.0, 7);
}

#[tokio::test]
async fn nothing_is_written_to_an_image_whatever_the_mount_says() {
    for guest in ["there", "make"] {
        for mount in [json!({}), json!({"readOnly": false}), json!({"subPath": "deep/er"})] {
            // What cannot be opened for writing is waited for: standard input is at its end.
            assert_eq!(run(guest, &mount).await.0, 0, "{guest} {mount}");
        }
    }
}

#[tokio::test]
async fn a_part_that_there_is_not_is_refused_and_not_made() {
    let (api, registry, root) = (Api::start().await, registry().await, Root::new());
    let agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    api.apply(pod(&registry, "reads", &json!({"subPath": "none"})));
    let told = api.status("web", crate::REASON, "CreateContainerError").await;
    let message = &told["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let message = message.as_str().unwrap();
    assert!(message.starts_with("ImageVolumeMountFailed: subPath none: open none"), "{message}");
    let [requested, succeeded, failed] = mounts_counted(&agent);
    assert!(
        failed > 0 && requested == failed && succeeded == 0,
        "{requested} {succeeded} {failed}"
    );
    for tree in std::fs::read_dir(root.path().join("images/trees")).unwrap() {
        assert!(!tree.unwrap().path().join("none").exists());
    }
}

#[tokio::test]
async fn an_image_that_is_not_to_be_had_holds_up_who_mounts_it_and_nobody_else() {
    let (api, registry, root) = (Api::start().await, registry().await, Root::new());
    let _agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut web = pod(&registry, "reads", &json!({}));
    let missing = registry.image("missing");
    web["spec"]["volumes"][0]["image"]["reference"] = json!(missing);
    let other = json!({"name": "other", "image": registry.image("waits"), "stdin": true,
                       "imagePullPolicy": "IfNotPresent"});
    web["spec"]["containers"].as_array_mut().unwrap().push(other);
    api.apply(web);

    let told = api.status("web", crate::REASON, "ImagePullBackOff").await;

    let message = &told["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let words = format!("Back-off pulling image \"{missing}\": ErrImagePull: ");
    assert!(message.as_str().unwrap().starts_with(&words), "{message}");
    api.until("the other", |api| {
        api.pod("web")?["status"].pointer("/containerStatuses/1/state/running").cloned()
    })
    .await;
    let events = api.events();
    for (reason, text) in [
        ("Pulling", format!("Pulling image \"{missing}\"")),
        ("BackOff", format!("Back-off pulling image \"{missing}\"")),
        ("Failed", "Error: ErrImagePull".to_owned()),
    ] {
        assert!(events.contains(&(reason.to_owned(), text.clone())), "{text}: {events:?}");
    }
}

#[tokio::test]
async fn every_run_has_the_same_image_though_agent_and_registry_are_gone_meanwhile() {
    let (api, registry, root) = (Api::start().await, registry().await, Root::new());
    let often = |config: &mut nodule_pod::Config| config.longest_backoff = Duration::from_secs(1);
    let registries = [&*registry.host];
    let agent = Agent::changed(&api, root.path(), &registries, None, often).await;
    let mut web = pod(&registry, "reads", &json!({}));
    web["spec"]["restartPolicy"] = json!("Always");
    web["spec"]["volumes"][0]["image"]["pullPolicy"] = json!("Always");
    api.apply(web);
    let restarts =
        |api: &Api| api.pod("web")?["status"]["containerStatuses"][0]["restartCount"].as_i64();
    api.until("a restart", |api| restarts(api).filter(|count| *count > 0)).await;
    let used = nodule_pod::images_in_use(root.path(), &agent.images).unwrap();
    drop(agent);
    assert!(used.iter().any(|image| image.contains("/model@sha256:")), "{used:?}");
    let host = registry.host.clone();
    drop(registry);

    let _agent = Agent::changed(&api, root.path(), &[&host], None, often).await;

    let before = restarts(&api).unwrap();
    let told = api.until("restarts", |api| {
        restarts(api).filter(|count| *count > before + 1)?;
        let status = api.pod("web")?["status"]["containerStatuses"][0].clone();
        status["lastState"]["terminated"]["exitCode"].as_i64()
    });
    assert_eq!(told.await, 7);
    let pulled = api
        .events()
        .into_iter()
        .filter(|(reason, text)| reason == "Pulling" && text.contains("/model:1"));
    assert_eq!(pulled.count(), 1);
}

#[tokio::test]
async fn a_pull_that_takes_long_tells_how_far_it_is() {
    let go_on = Arc::new(Notify::new());
    let model: &[(&str, &[u8])] = &[("k", b"2"), ("large", &[7; 3_000_000])];
    let registry = Registry::stalling(&[("reads", READS)], model, Arc::clone(&go_on)).await;
    let (api, root) = (Api::start().await, Root::new());
    let soon = |config: &mut nodule_pod::Config| config.slow_pull = Duration::from_millis(1);
    let _agent = Agent::changed(&api, root.path(), &[&registry.host], None, soon).await;
    api.apply(pod(&registry, "reads", &json!({})));
    let name = registry.image("model");
    let told = |api: &Api, text: &str| {
        let wanted = ("Pulling".to_owned(), format!("Pulling image \"{name}\"{text}"));
        api.events().contains(&wanted).then_some(())
    };

    api.until("the beginning", |api| told(api, "")).await;
    // How much of it is written to the disk when it is looked at is the disk's to say.
    api.until("how far it is", |api| {
        let begins = format!("Pulling image \"{name}\": ");
        let mut events = api.events().into_iter();
        events.find(|(_, text)| text.starts_with(&begins) && text.ends_with(" of 3.0 MB"))
    })
    .await;
    go_on.notify_one();

    let ended = api.until("an end", |api| {
        api.pod("web")?["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
            .as_i64()
    });
    assert_eq!(ended.await, 7);
}

/// Whoever runs by a record that nobody can read keeps what its process has open, and no other image.
#[tokio::test]
async fn a_pod_whose_record_is_damaged_keeps_its_own_images_alone() {
    let (api, root) = (Api::start().await, Root::new());
    let model: &[(&str, &[u8])] = &[("k", b"2")];
    let registry = Registry::with_model(&[("waits", WAITS), ("other", READS)], model).await;
    let agent = Agent::with(&api, root.path(), &[&registry.host]).await;
    let mut web = pod(&registry, "waits", &json!({}));
    web["spec"]["containers"][0]["stdin"] = json!(true);
    api.apply(web);
    api.until("a run", |api| {
        api.pod("web")?["status"].pointer("/containerStatuses/0/state/running").cloned()
    })
    .await;
    let other = nodule_image::Reference::parse(&registry.image("other")).unwrap();
    drop(agent.images.pull(&other, &nodule_image::Keyring::default()).await.unwrap());
    let images = agent.images.clone();
    drop(agent);
    let record = root.path().join("pods/u1/record.json");
    std::fs::write(&record, "{").unwrap();

    let used = nodule_pod::images_in_use(root.path(), &images).unwrap();
    let freed = images.free(used.clone()).await.unwrap();

    assert_eq!((used.len(), freed.spaced), (2, 1), "{used:?}");
    let stock =
        |name| images.stock().into_iter().find(|image| image.tags.contains(&registry.image(name)));
    assert!(
        ["waits", "model"]
            .map(stock)
            .iter()
            .all(|image| used.contains(&image.as_ref().unwrap().digest))
    );
    assert!(stock("other").is_none());

    let told = root.path().join("pods/u1/containers/app/0/container.json");
    std::fs::remove_file(&told).unwrap();
    std::fs::write(&told, "{").unwrap();
    let error = nodule_pod::images_in_use(root.path(), &images).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("u1/containers/app/0/container.json"), "{cause}");
    assert!(error.to_string().contains("delete the pod of this folder"), "{error}");
}
