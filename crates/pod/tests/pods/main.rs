//! Pods against an API server that answers as a test asks: what is told, and what is kept when it cannot be told.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as a test does"
)]

mod admission;
mod adoption;
mod api;
mod certificates;
mod clock;
mod compilations;
mod environment;
mod eviction;
mod groups;
mod guests;
mod health;
mod hooks;
mod images;
mod lifecycle;
mod node;
mod objects;
mod peer;
mod programs;
mod registry;
mod resize;
mod root;
mod roots;
mod shutdown;
mod statics;
mod storage;
mod volumes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Api, Fault};
use axum::http::Method;
use k8s_openapi::api::core::v1::Node;
use nodule_image::Images;
use nodule_pod::{
    Cgroups, Clients, Config, Inputs, Instance, Metrics, Pods, ShutdownGroup, Sources, Starved,
    Static,
};
use prometheus::{Registry, TextEncoder};
use root::Root;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// An agent's pods on a node of their own. Dropped, they end as with `kill -9`.
struct Agent {
    pods: Pods,
    /// What `/metrics` shows.
    counts: Registry,
    /// What `/metrics/probes` shows.
    probes: Registry,
    images: Images,
    registered: watch::Sender<Option<Arc<Node>>>,
    starved: watch::Sender<Vec<Starved>>,
    shutting: watch::Sender<bool>,
    _runner: JoinSet<()>,
}

impl Agent {
    async fn start(api: &Api, root: &Path) -> Self {
        Self::with(api, root, &[]).await
    }

    /// With registries that are asked over plain HTTP.
    async fn with(api: &Api, root: &Path, registries: &[&str]) -> Self {
        Self::made(api, root, registries, None).await
    }

    /// With cgroups for its pods, too.
    async fn made(api: &Api, root: &Path, registries: &[&str], cgroups: Option<Cgroups>) -> Self {
        let agent = Self::sourced(api, root, registries, cgroups, Vec::new(), |_| ()).await;
        agent.register();
        agent
    }

    /// What is counted under a name and its labels (`name{label="value"}`); none if it never was.
    fn counted(&self, series: &str) -> Option<u64> {
        let shown = TextEncoder::new().encode_to_string(&self.counts.gather()).unwrap();
        let mut lines = shown.lines().filter_map(|line| line.split_once(' '));
        lines.find_map(|(name, value)| (name == series).then(|| value.parse().unwrap()))
    }

    /// Requests for images of this policy, of what was found, and of what followed.
    fn requests(&self, policy: &str, is_here: &str, is_pulled: &str) -> Option<u64> {
        let name = "kubelet_image_manager_ensure_image_requests_total";
        self.counted(&format!(
            "{name}{{present_locally=\"{is_here}\",pull_policy=\"{policy}\",pull_required=\"{is_pulled}\"}}"
        ))
    }

    /// Tells the agent that its node is registered.
    fn register(&self) {
        self.registered.send_replace(Some(Arc::new(large())));
    }

    /// With another configuration.
    async fn changed(
        api: &Api,
        root: &Path,
        registries: &[&str],
        cgroups: Option<Cgroups>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let agent = Self::sourced(api, root, registries, cgroups, Vec::new(), change).await;
        agent.register();
        agent
    }

    /// With static pods, and not registered yet.
    async fn sourced(
        api: &Api,
        root: &Path,
        registries: &[&str],
        cgroups: Option<Cgroups>,
        statics: Vec<Static>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let privileged = cgroups.is_some();
        // Done by the first test of the process; the others find it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = nodule_image::Config::new(root.join("images"), program("NODULE_COMPILE"));
        config.collect.youngest = Duration::ZERO;
        config.plain_http = registries.iter().map(|host| (*host).to_owned()).collect();
        let counts = Registry::new();
        let counted = nodule_image::Metrics::register(&counts).unwrap();
        let images = Images::open(config, counted).await.unwrap();
        let mut config = Config {
            node: "n1".to_owned(),
            version: "v1.36.3".to_owned(),
            addresses: vec!["127.0.0.1".to_owned()],
            root: root.to_owned(),
            run: root.join("run"),
            logs: root.join("logs"),
            log_links: root.join("containers"),
            sandbox: program("NODULE_SANDBOX"),
            start: nodule_pod::Start::Exec,
            users: None,
            cgroups,
            memory: 1 << 30,
            privileged,
            may_mount: false,
            network: nodule_pod::Network {
                deny: vec!["192.0.2.0/24".parse().unwrap()],
                ..nodule_pod::Network::default()
            },
            log_max_size: 1 << 20,
            log_max_files: 5,
            shutdown: [(0, 60), (2_000_000_000, 60)]
                .map(|(priority, grace)| ShutdownGroup {
                    priority,
                    grace: Duration::from_secs(grace),
                })
                .into(),
            sync: Duration::from_secs(60),
            slow_pull: Duration::from_secs(30),
            longest_backoff: Duration::from_secs(300),
        };
        change(&mut config);
        let (registered, node) = watch::channel(None);
        let (starved, short) = watch::channel(Vec::new());
        let (shutting, is_shutting) = watch::channel(false);
        let inputs = Inputs { node, starved: short, shutting: is_shutting };
        let probes = Registry::new();
        let metrics = Metrics::register(&counts, &probes).unwrap();
        let clients = Clients { pods: api.client(), events: api.client() };
        let sources = Sources { cluster: Some(clients), statics, orders: None };
        let (pods, runner) = Pods::new(sources, config, images.clone(), inputs, metrics);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let Err(error) = runner.run().await;
            panic!("{error}");
        });
        Self { pods, counts, probes, images, registered, starved, shutting, _runner: tasks }
    }
}

/// A node that has room.
fn large() -> Node {
    let node = json!({
        "metadata": {"name": "n1", "uid": "node-uid"},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "ephemeral-storage": "8Gi", "pods": "110"}},
    });
    serde_json::from_value(node).unwrap()
}

/// `nodule-compile` or `nodule-sandbox`, which are built beside the tests; or what the variable of this name says.
fn program(variable: &str) -> PathBuf {
    let name = variable.to_ascii_lowercase().replace('_', "-");
    let beside = std::env::current_exe().unwrap().parent().unwrap().with_file_name(name);
    std::env::var_os(variable).map_or(beside, PathBuf::from)
}

fn pod(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "app", "image": "registry.invalid/app:1", "imagePullPolicy": "Never"}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    })
}

const REASON: &str = "/containerStatuses/0/state/waiting/reason";

async fn empty() -> (Api, Root) {
    (Api::start().await, Root::new())
}

/// Waits until the clock shows another second than now: a time that is told anew is another one then.
async fn a_second_later() {
    let now = jiff::Timestamp::now().as_second();
    on_disk("a later second", || jiff::Timestamp::now().as_second() > now).await;
}

#[tokio::test]
async fn a_pod_is_told_of_with_all_that_its_status_needs() {
    let (api, root) = empty().await;
    let agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    let told = api.status("web", REASON, "ErrImageNeverPull").await;
    let status = &told["status"];
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("127.0.0.1"), &json!("127.0.0.1")));
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "Container image \"registry.invalid/app:1\" is not present with pull policy of Never"
    );
    let event = api.until("event", |api| {
        api.events().into_iter().find(|(reason, _)| reason == "ErrImageNeverPull")
    });
    assert!(event.await.1.contains("registry.invalid/app:1"));
    assert!(agent.requests("never", "false", "unknown").unwrap() > 0);
    assert_eq!(agent.pods.list().len(), 1);
    let waiting =
        agent.pods.log("default", "web", "app", Instance::Current).unwrap_err().to_string();
    assert_eq!(waiting, "container \"app\" in pod \"web\" is waiting to start: ErrImageNeverPull");
    let none =
        agent.pods.log("default", "web", "other", Instance::Current).unwrap_err().to_string();
    assert_eq!(none, "container \"other\" not found in pod \"web\"");
    let none = agent.pods.log("default", "web", "app", Instance::Previous).unwrap_err().to_string();
    assert_eq!(none, "previous terminated container \"app\" in pod \"web\" not found");
}

#[tokio::test]
async fn the_next_agent_tells_the_same_start_and_since_when_conditions_hold() {
    let (api, root) = empty().await;
    let first = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    let before = api.status("web", REASON, "ErrImageNeverPull").await["status"].clone();
    assert!(before["startTime"].is_string(), "{before}");
    drop(first);
    for damage in ["", "{}"] {
        // With its record, and without.
        if !damage.is_empty() {
            std::fs::write(root.path().join("pods/u1/record.json"), damage).unwrap();
        }
        a_second_later().await;
        let told = api.requests(&Method::PATCH, "/pods/web/status").len();
        let _next = Agent::start(&api, root.path()).await;
        let again = |api: &Api| api.requests(&Method::PATCH, "/pods/web/status").get(told).cloned();
        let (_, body) = api.until("told again", again).await;
        for key in ["startTime", "conditions"] {
            assert_eq!(times(&body["status"][key]), times(&before[key]), "{body}");
        }
    }
}

/// What is said, and since when; without what is left out of an answer.
fn times(said: &Value) -> Vec<Value> {
    let of = |one: &Value| json!([one["type"], one["status"], one["lastTransitionTime"]]);
    said.as_array().map_or_else(|| vec![said.clone()], |all| all.iter().map(of).collect())
}

#[tokio::test]
async fn a_status_that_cannot_be_sent_is_sent_again() {
    let (api, root) = empty().await;
    for fault in
        [Fault::Code(500), Fault::Code(429), Fault::Code(409), Fault::Code(403), Fault::Cut]
    {
        api.fail(Method::PATCH, "/pods/web/status", fault);
    }
    let _agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.status("web", REASON, "ErrImageNeverPull").await;
}

#[tokio::test]
async fn a_status_that_somebody_else_writes_over_is_said_again() {
    let (api, root) = empty().await;
    let _agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.status("web", REASON, "ErrImageNeverPull").await;
    let sent = api.pod("web").unwrap();
    let mut other = sent.clone();
    for condition in other["status"]["conditions"].as_array_mut().unwrap() {
        condition["status"] = json!("Unknown");
    }
    api.apply(other);
    api.until("said again", |api| {
        let conditions = api.pod("web")?["status"]["conditions"].clone();
        (conditions == sent["status"]["conditions"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_is_told_as_ended_and_then_removed_by_its_uid() {
    let (api, root) = empty().await;
    let _agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.status("web", REASON, "ErrImageNeverPull").await;
    for fault in [Fault::Code(500), Fault::Cut] {
        api.fail(Method::PATCH, "/pods/web/status", fault);
        api.fail(Method::DELETE, "/pods/web", fault);
    }
    api.delete("web", 30);
    api.until("removed", |api| api.pod("web").is_none().then_some(())).await;
    let all = api.requests_of("/pods/web");
    let first = all.iter().position(|(method, _)| *method == Method::DELETE).unwrap();
    let told = all[..first].iter().rfind(|(method, _)| *method == Method::PATCH).unwrap();
    assert_eq!(told.1["status"]["phase"], "Failed", "removed before that was told");
    let deletes = api.requests(&Method::DELETE, "/pods/web");
    for (_, body) in &deletes {
        assert_eq!(
            (&body["gracePeriodSeconds"], &body["preconditions"]["uid"]),
            (&json!(0), &json!("u1"))
        );
    }
    let patches = api.requests(&Method::PATCH, "/pods/web/status");
    let last = &patches.last().unwrap().1["status"];
    assert_eq!(last["phase"], "Failed");
    let end = &last["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&end["exitCode"], &end["reason"]),
        (&json!(137), &json!("ContainerStatusUnknown")),
        "{last}"
    );
    gone(root.path(), "u1").await;
}

/// Waits until nothing of the pod is on disk. The agent has no one to tell, so the folder is looked at.
async fn gone(root: &Path, uid: &str) {
    let folder = root.join("pods").join(uid);
    on_disk("gone", || !folder.exists()).await;
}

/// Waits until something holds on disk, of which nobody tells.
async fn on_disk(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), wait).await;
    outcome.unwrap_or_else(|_| panic!("not seen: {what}"));
}

#[tokio::test]
async fn a_pod_that_is_removed_by_force_leaves_nothing() {
    let (api, root) = empty().await;
    let agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.status("web", REASON, "ErrImageNeverPull").await;
    api.remove("web");
    gone(root.path(), "u1").await;
    assert!(api.requests(&Method::DELETE, "/pods/web").is_empty());
    while !agent.pods.list().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_watch_that_ends_is_taken_up_and_what_went_meanwhile_is_gone() {
    let (api, root) = empty().await;
    let first = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.apply(pod("db", "u2"));
    api.status("web", REASON, "ErrImageNeverPull").await;
    api.status("db", REASON, "ErrImageNeverPull").await;
    drop(first);
    api.lose("web");
    for fault in [Fault::Gone, Fault::Code(500), Fault::Cut] {
        api.fail(Method::GET, "/api/v1/pods", fault);
    }
    let _second = Agent::start(&api, root.path()).await;
    gone(root.path(), "u1").await;
    assert!(root.path().join("pods/u2/record.json").exists());
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_listed() {
    let (api, root) = empty().await;
    api.fail(Method::GET, "sendInitialEvents", Fault::Code(422));
    let _agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.status("web", REASON, "ErrImageNeverPull").await;
    assert!(
        api.requests(&Method::GET, "/api/v1/pods")
            .iter()
            .any(|(path, _)| !path.contains("watch=true"))
    );
}

#[tokio::test]
async fn a_pod_of_the_same_name_is_another_pod() {
    let (api, root) = empty().await;
    let _agent = Agent::start(&api, root.path()).await;
    api.apply(pod("web", "u1"));
    api.status("web", REASON, "ErrImageNeverPull").await;
    // Removed and made again while the watch says nothing of the removal.
    api.lose("web");
    api.apply(pod("web", "u2"));
    let told = api.status("web", REASON, "ErrImageNeverPull").await;
    assert_eq!(told["metadata"]["uid"], "u2");
    assert!(api.requests(&Method::DELETE, "/pods/web").is_empty());
}

#[tokio::test]
async fn a_pod_that_has_ended_is_not_touched_again() {
    let (api, root) = empty().await;
    let mut ended = pod("job", "u1");
    ended["status"]["phase"] = json!("Succeeded");
    api.apply(ended);
    api.apply(pod("web", "u2"));
    let _agent = Agent::start(&api, root.path()).await;
    api.status("web", REASON, "ErrImageNeverPull").await;
    assert!(api.requests(&Method::PATCH, "/pods/job/status").is_empty());
    assert!(api.events().iter().all(|(_, message)| !message.contains("job")));
}

#[tokio::test]
async fn a_silent_request_of_one_pod_delays_no_other() {
    let (api, root) = empty().await;
    api.fail(Method::PATCH, "/pods/mute/status", Fault::Silence);
    let _agent = Agent::start(&api, root.path()).await;
    api.apply(pod("mute", "u1"));
    api.apply(pod("web", "u2"));
    api.status("web", REASON, "ErrImageNeverPull").await;
}
