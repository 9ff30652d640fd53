//! Static pods and their mirrors: real manifests in a real folder.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Method;
use k8s_openapi::api::core::v1::Pod;
use nodule_manifest::Folder;
use nodule_pod::Static;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{Api, Fault};
use crate::guests::{WAITS, exits};
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, a_second_later, on_disk, times};

const RUNNING: &str = "/status/containerStatuses/0/state/running";

struct Place {
    api: Api,
    registry: Registry,
    root: Root,
    manifests: PathBuf,
}

/// An agent with its folder of manifests.
struct Node {
    agent: Agent,
    _folder: JoinSet<()>,
}

impl Place {
    async fn new() -> Self {
        let root = Root::new();
        let manifests = root.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        let done = exits(0);
        let registry = Registry::start(&[("waits", WAITS), ("done", &done)]).await;
        Self { api: Api::start().await, registry, root, manifests }
    }

    async fn node(&self) -> Node {
        let (sender, sets) = watch::channel(None);
        let mut folder = JoinSet::new();
        let period = Duration::from_hours(1);
        folder.spawn(Folder::new(self.manifests.clone(), "n1", period).watch(sender));
        let statics = vec![Static { source: "file", sets }];
        let registries = [self.registry.host.as_str()];
        let agent =
            Agent::sourced(&self.api, self.root.path(), &registries, None, statics, |_| ()).await;
        Node { agent, _folder: folder }
    }

    fn write(&self, file: &str, pod: &str, image: &str, labels: &Value) {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels},
            "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "OnFailure", "containers": [{
                "name": "app", "image": self.registry.image(image), "imagePullPolicy": "IfNotPresent", "stdin": true}]}});
        let whole = self.manifests.join(format!(".{file}"));
        fs::write(&whole, manifest.to_string()).unwrap();
        fs::rename(whole, self.manifests.join(file)).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.manifests.join(file)).unwrap();
    }

    /// Waits until the API server shows the pod as running, by a mirror that is not `than`.
    async fn runs(&self, name: &str, than: &Value) -> Value {
        let shown = |api: &Api| {
            let pod = api.pod(name)?;
            let running = pod.pointer(RUNNING)?.is_object();
            (running && pod["metadata"]["uid"] != *than).then_some(pod)
        };
        self.api.until(&format!("{name} runs"), shown).await
    }
}

impl Node {
    /// Ends all that runs.
    async fn end(self, place: &Place) {
        fs::remove_dir_all(&place.manifests).unwrap();
        fs::create_dir(&place.manifests).unwrap();
        // A folder that was replaced is looked at by the next agent.
        drop(self);
        place.node().await.has("no pod", <[Pod]>::is_empty).await;
    }

    /// Waits for a pod that the agent itself knows.
    async fn has(&self, what: &str, holds: impl Fn(&[Pod]) -> bool) {
        on_disk(what, || holds(&self.agent.pods.list())).await;
    }
}

fn phase(pods: &[Pod], name: &str) -> Option<String> {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))?;
    pod.status.as_ref()?.phase.clone()
}

fn hash(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"]["kubernetes.io/config.mirror"]
}

#[tokio::test]
async fn a_static_pod_runs_before_its_node_is_registered_and_is_mirrored_after() {
    let place = Place::new().await;
    place.write("web.yaml", "web", "waits", &json!({"app": "web"}));
    let node = place.node().await;
    node.has("running", |pods| phase(pods, "web-n1").as_deref() == Some("Running")).await;
    assert!(place.api.requests(&Method::POST, "/pods").is_empty());
    node.agent.register();
    let mirror = place.runs("web-n1", &Value::Null).await;
    let meta = &mirror["metadata"];
    assert_eq!(meta["labels"], json!({"app": "web"}));
    assert_eq!(meta["ownerReferences"][0]["uid"], "node-uid");
    assert_eq!(hash(&mirror), &meta["annotations"]["kubernetes.io/config.hash"]);
    let told = place.api.requests(&Method::PATCH, "/pods/web-n1/status");
    assert!(told.iter().all(|(_, body)| body["metadata"]["uid"] == meta["uid"]));
    // The mirror is no pod of its own.
    assert_eq!(node.agent.pods.list().len(), 1);
    node.end(&place).await;
}

#[tokio::test]
async fn who_deletes_the_mirror_ends_nothing_and_gets_a_new_one() {
    let place = Place::new().await;
    place.write("web.yaml", "web", "waits", &json!({}));
    let node = place.node().await;
    node.agent.register();
    let first = place.runs("web-n1", &Value::Null).await;
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    // kubectl delete, which waits for the node; then what a force deletion does; then with trouble on the way.
    place.api.delete("web-n1", 30);
    let second = place.runs("web-n1", &first["metadata"]["uid"]).await;
    place.api.fail(Method::POST, "/pods", Fault::Code(500));
    place.api.fail(Method::POST, "/pods", Fault::Cut);
    place.api.remove("web-n1");
    let third = place.runs("web-n1", &second["metadata"]["uid"]).await;
    assert_eq!((id(&first), id(&first)), (id(&second), id(&third)));
    let deletes = place.api.requests(&Method::DELETE, "/pods/web-n1");
    assert_eq!(deletes[0].1["gracePeriodSeconds"], 0);
    assert_eq!(deletes[0].1["preconditions"]["uid"], first["metadata"]["uid"]);
    node.end(&place).await;
}

#[tokio::test]
async fn a_changed_manifest_is_another_pod_after_the_first_and_a_removed_one_is_none() {
    let place = Place::new().await;
    place.write("web.yaml", "web", "waits", &json!({"version": "1"}));
    let node = place.node().await;
    node.agent.register();
    let first = place.runs("web-n1", &Value::Null).await;
    place.write("web.yaml", "web", "waits", &json!({"version": "2"}));
    let second = place.runs("web-n1", &first["metadata"]["uid"]).await;
    assert_ne!(hash(&first), hash(&second));
    assert_eq!(second["metadata"]["labels"]["version"], "2");
    assert_eq!(node.agent.pods.list().len(), 1);
    // It had its own grace period: it was stopped, not killed.
    let killing = |events: Vec<(String, String)>| {
        events.iter().filter(|(reason, _)| reason == "Killing").count()
    };
    assert_eq!(killing(place.api.events()), 1);
    place.remove("web.yaml");
    place.api.until("no mirror", |api| api.pod("web-n1").is_none().then_some(())).await;
    node.has("no pod", <[Pod]>::is_empty).await;
}

#[tokio::test]
async fn a_manifest_that_is_broken_ends_nothing_and_is_told_of() {
    let place = Place::new().await;
    place.write("a.yaml", "web", "waits", &json!({}));
    let node = place.node().await;
    node.agent.register();
    let first = place.runs("web-n1", &Value::Null).await;
    fs::write(place.manifests.join("a.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n")
        .unwrap();
    let told = |api: &Api| {
        let events = api.events();
        events.into_iter().find(|(reason, _)| reason == "FailedValidation").map(|(_, text)| text)
    };
    let text = place.api.until("told", told).await;
    assert!(text.contains("a.yaml, document 1, field \"spec"), "{text}");
    // Another one is read while it is so.
    place.write("b.yaml", "next", "waits", &json!({}));
    place.runs("next-n1", &Value::Null).await;
    // The next agent cannot read it either.
    drop(node);
    let node = place.node().await;
    node.agent.register();
    node.has("both", |pods| pods.len() == 2 && phase(pods, "web-n1").as_deref() == Some("Running"))
        .await;
    let still = place.runs("web-n1", &Value::Null).await;
    assert_eq!(still["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(still["status"]["containerStatuses"][0]["restartCount"], 0);
    place.remove("a.yaml");
    place.api.until("no mirror", |api| api.pod("web-n1").is_none().then_some(())).await;
    node.end(&place).await;
}

#[tokio::test]
async fn what_went_while_no_agent_was_there_ends_with_the_next_one() {
    let place = Place::new().await;
    place.write("web.yaml", "web", "waits", &json!({}));
    place.write("job.yaml", "job", "done", &json!({}));
    let node = place.node().await;
    node.agent.register();
    place.runs("web-n1", &Value::Null).await;
    place.api.status("job-n1", "/phase", "Succeeded").await;
    drop(node);
    place.remove("web.yaml");
    let node = place.node().await;
    node.has("one pod", |pods| pods.len() == 1).await;
    // Registered when the pod is gone: its mirror is nobody's.
    node.agent.register();
    place.api.until("no mirror", |api| api.pod("web-n1").is_none().then_some(())).await;
    // What has ended stays ended.
    let job = place.api.pod("job-n1").unwrap();
    assert_eq!(job["status"]["phase"], "Succeeded");
    assert_eq!(job["status"]["containerStatuses"][0]["restartCount"], 0);
    node.end(&place).await;
}

#[tokio::test]
async fn the_next_agent_tells_a_mirror_since_when_its_conditions_hold() {
    let place = Place::new().await;
    place.write("web.yaml", "web", "waits", &json!({}));
    let node = place.node().await;
    node.agent.register();
    let ready = |api: &Api| {
        let status = api.pod("web-n1")?["status"].clone();
        (status["containerStatuses"][0]["ready"] == true).then_some(status)
    };
    let before = place.api.until("ready", ready).await;
    drop(node);
    a_second_later().await;
    let told = place.api.requests(&Method::PATCH, "/pods/web-n1/status").len();
    let node = place.node().await;
    // It has begun long before it sees its mirror.
    node.has("the pod", |pods| phase(pods, "web-n1").as_deref() == Some("Running")).await;
    node.agent.register();
    let again = |api: &Api| api.requests(&Method::PATCH, "/pods/web-n1/status").get(told).cloned();
    let (_, body) = place.api.until("told again", again).await;
    for key in ["startTime", "conditions"] {
        assert_eq!(times(&body["status"][key]), times(&before[key]), "{body}");
    }
    node.end(&place).await;
}

#[tokio::test]
async fn a_mirror_that_somebody_writes_over_is_told_again() {
    let place = Place::new().await;
    place.write("web.yaml", "web", "waits", &json!({}));
    let node = place.node().await;
    node.agent.register();
    let sent = place.runs("web-n1", &Value::Null).await;
    let mut other = sent.clone();
    for condition in other["status"]["conditions"].as_array_mut().unwrap() {
        condition["status"] = json!("Unknown");
    }
    place.api.apply(other);
    place
        .api
        .until("said again", |api| {
            let conditions = api.pod("web-n1")?["status"]["conditions"].clone();
            (conditions == sent["status"]["conditions"]).then_some(())
        })
        .await;
    node.end(&place).await;
}
