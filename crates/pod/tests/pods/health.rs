//! Probes and hooks of real containers. The test's own server answers in their place, on the pod's address.

use axum::http::Method;
use prometheus::TextEncoder;
use serde_json::{Value, json};

use crate::Agent;
use crate::api::Api;
use crate::guests::{DEAF, WAITS};
use crate::peer::Peer;
use crate::registry::Registry;
use crate::root::Root;

pub(crate) struct Node {
    pub(crate) api: Api,
    registry: Registry,
    root: Root,
    pub(crate) peer: Peer,
}

impl Node {
    pub(crate) async fn new() -> Self {
        let registry = Registry::start(&[("waits", WAITS), ("deaf", DEAF)]).await;
        let (api, peer) = (Api::start().await, Peer::start().await);
        Self { api, registry, root: Root::new(), peer }
    }

    pub(crate) async fn agent(&self) -> Agent {
        Agent::with(&self.api, self.root.path(), &[&self.registry.host]).await
    }

    pub(crate) fn container(&self, name: &str, image: &str, more: &Value) -> Value {
        let mut container = json!({
            "name": name, "image": self.registry.image(image), "imagePullPolicy": "IfNotPresent",
            "stdin": true, "ports": [{ "name": "web", "containerPort": self.peer.port }],
        });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    }

    /// Makes a pod of these containers.
    pub(crate) fn pod(&self, policy: &str, containers: &Value) {
        let mut pod = crate::pod("web", "u1");
        pod["spec"]["restartPolicy"] = json!(policy);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
        pod["spec"]["containers"] = containers.clone();
        self.api.apply(pod);
    }

    /// Waits until the first container is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = self.api.until(what, |api| {
            let status = api.pod("web")?["status"]["containerStatuses"][0].clone();
            wanted(&status).then_some(status)
        });
        found.await
    }

    pub(crate) async fn event(&self, reason: &str, message: &str) {
        let what = format!("{reason} {message}");
        let said = (reason.to_owned(), message.to_owned());
        self.api.until(&what, |api| api.events().contains(&said).then_some(())).await;
    }

    pub(crate) async fn delete(&self, grace: u64) {
        self.api.delete("web", grace);
        self.api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    }

    /// What the first container's readiness was said to be, each time.
    fn told_ready(&self) -> Vec<bool> {
        let patches = self.api.requests(&Method::PATCH, "/pods/web/status");
        let ready =
            |(_, body): &(String, Value)| body["status"]["containerStatuses"][0]["ready"].as_bool();
        patches.iter().filter_map(ready).collect()
    }
}

pub(crate) fn http(path: &str) -> Value {
    json!({ "httpGet": { "path": path, "port": "web" }, "periodSeconds": 1, "timeoutSeconds": 30 })
}

pub(crate) fn hook(path: &str) -> Value {
    json!({ "httpGet": { "path": path, "port": "web" } })
}

pub(crate) fn is_ready(status: &Value) -> bool {
    status["ready"] == true
}

fn restarted(status: &Value) -> bool {
    status["restartCount"] == 1 && !status["state"]["running"].is_null()
}

#[tokio::test]
async fn a_container_is_ready_while_its_probe_says_so() {
    let node = Node::new().await;
    node.peer.answer("/ready", 503);
    let _agent = node.agent().await;
    let mut probe = http("/ready");
    probe["failureThreshold"] = json!(1);
    node.pod("Always", &json!([node.container("app", "waits", &json!({"readinessProbe": probe}))]));
    let status = node.until("started", |status| status["started"] == true).await;
    assert_eq!(status["ready"], false);
    node.event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503").await;
    let conditions = node.api.pod("web").unwrap()["status"]["conditions"].clone();
    let ready = conditions.as_array().unwrap().iter().find(|one| one["type"] == "Ready").unwrap();
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("ContainersNotReady"))
    );
    node.peer.answer("/ready", 200);
    node.until("ready", is_ready).await;
    node.peer.answer("/ready", 500);
    let status = node.until("unready", |status| status["ready"] == false).await;
    assert_eq!((&status["started"], &status["restartCount"]), (&json!(true), &json!(0)));
    node.delete(1).await;
}

/// The lines of `prober_probe_total`, without what all of them say.
fn probed(agent: &Agent) -> Vec<String> {
    let text = TextEncoder::new().encode_to_string(&agent.probes.gather()).unwrap();
    let start = r#"prober_probe_total{container="app",namespace="default",pod="web",pod_uid="u1","#;
    text.lines().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
}

#[tokio::test]
async fn probes_are_counted_over_all_runs_of_a_container_until_its_pod_ends() {
    let node = Node::new().await;
    node.peer.answer("/live", 503);
    let agent = node.agent().await;
    let mut live = http("/live");
    live["failureThreshold"] = json!(1);
    let probes = json!({"livenessProbe": live, "readinessProbe": http("/ready")});
    node.pod("Always", &json!([node.container("app", "waits", &probes)]));
    node.until("restarted", restarted).await;
    node.peer.answer("/live", 200);
    node.until("ready", is_ready).await;
    let asked = node.peer.count("/live");
    node.peer.until("/live", asked + 2).await;
    let counted = probed(&agent);
    // The second run has not forgotten that the first one failed.
    for wanted in [
        r#"probe_type="Liveness",result="failed"} "#,
        r#"probe_type="Liveness",result="successful"} "#,
        r#"probe_type="Readiness",result="successful"} "#,
    ] {
        let number = counted.iter().find_map(|line| line.strip_prefix(wanted));
        let number: usize = number.unwrap_or_else(|| panic!("{counted:?}")).parse().unwrap();
        assert!((1..=node.peer.asked().len()).contains(&number), "{counted:?}");
    }
    let text = TextEncoder::new().encode_to_string(&agent.probes.gather()).unwrap();
    let took = r#"prober_probe_duration_seconds_count{container="app",namespace="default",pod="web",probe_type="Liveness"}"#;
    assert!(text.contains(took), "{text}");
    node.delete(1).await;
    crate::on_disk("no probes", || agent.probes.gather().is_empty()).await;
}

#[tokio::test]
async fn an_agents_restart_makes_no_ready_container_unready_and_asks_it_again() {
    let node = Node::new().await;
    let agent = node.agent().await;
    let probes = json!({"startupProbe": http("/started"), "readinessProbe": http("/ready")});
    node.pod("Always", &json!([node.container("app", "waits", &probes)]));
    node.until("ready", is_ready).await;
    drop(agent);
    let (told, asked) = (node.told_ready().len(), node.peer.count("/ready"));
    let startups = node.peer.count("/started");
    let _next = node.agent().await;
    node.peer.until("/ready", asked + 2).await;
    assert!(node.told_ready().iter().skip(told).all(|ready| *ready), "{:?}", node.told_ready());
    assert_eq!(node.peer.count("/started"), startups, "it has started");
    node.peer.answer("/ready", 500);
    node.until("unready", |status| status["ready"] == false).await;
    node.delete(1).await;
}

#[tokio::test]
async fn a_container_that_is_not_alive_is_prepared_stopped_and_run_again_whatever_it_ends_with() {
    let node = Node::new().await;
    node.peer.answer("/alive", 500);
    let _agent = node.agent().await;
    let mut probe = http("/alive");
    probe["failureThreshold"] = json!(2);
    let more = json!({"livenessProbe": probe, "lifecycle": {"preStop": hook("/bye")}});
    // It ends with 0 when it is told to stop, which for OnFailure would be the end of it.
    node.pod("OnFailure", &json!([node.container("app", "waits", &more)]));
    node.peer.until("/bye", 1).await;
    assert_eq!(node.peer.asked(), ["/alive", "/alive", "/bye"]);
    node.peer.answer("/alive", 200);
    let status = node.until("again", restarted).await;
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 0);
    node.event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500").await;
    node.event("Killing", "Container app failed liveness probe, will be restarted").await;
    let asked = node.peer.count("/alive");
    node.peer.until("/alive", asked + 2).await;
    assert_eq!(node.peer.count("/bye"), 1);
    node.delete(5).await;
    assert_eq!(node.peer.count("/bye"), 2);
}

#[tokio::test]
async fn a_container_that_does_not_stop_is_killed_after_the_grace_of_its_probe() {
    let node = Node::new().await;
    node.peer.answer("/alive", 500);
    let _agent = node.agent().await;
    let mut probe = http("/alive");
    probe["failureThreshold"] = json!(1);
    probe["terminationGracePeriodSeconds"] = json!(1);
    let more = json!({"livenessProbe": probe});
    node.pod("Never", &json!([node.container("app", "deaf", &more)]));
    let told = node.api.status("web", "/phase", "Failed").await;
    let end = &told["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["exitCode"], 137);
    // With the pod's own, it would have had half a minute.
    let time =
        |end: &Value, name: &str| end[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = time(end, "finishedAt").duration_since(time(end, "startedAt")).as_secs();
    assert!(took < 25, "{took} s");
    node.event("Killing", "Container app failed liveness probe").await;
}

#[tokio::test]
async fn nothing_is_asked_of_a_container_before_it_has_started() {
    let node = Node::new().await;
    node.peer.answer("/started", 500);
    let _agent = node.agent().await;
    let mut startup = http("/started");
    startup["failureThreshold"] = json!(1000);
    let more = json!({
        "startupProbe": startup, "livenessProbe": http("/alive"), "readinessProbe": http("/ready"),
    });
    node.pod("Always", &json!([node.container("app", "waits", &more)]));
    node.peer.until("/started", 2).await;
    let status = node.until("runs", |status| !status["state"]["running"].is_null()).await;
    assert_eq!((&status["started"], &status["ready"]), (&json!(false), &json!(false)));
    node.event("Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 500").await;
    assert_eq!(node.peer.count("/started"), node.peer.asked().len(), "{:?}", node.peer.asked());
    node.peer.answer("/started", 200);
    node.until("ready", is_ready).await;
    let startups = node.peer.count("/started");
    node.peer.until("/alive", 2).await;
    assert_eq!(node.peer.count("/started"), startups);
    node.delete(1).await;
}

#[tokio::test]
async fn a_container_that_never_starts_is_run_again() {
    let node = Node::new().await;
    node.peer.answer("/started", 500);
    let _agent = node.agent().await;
    let mut startup = http("/started");
    startup["failureThreshold"] = json!(1);
    node.pod("Always", &json!([node.container("app", "waits", &json!({"startupProbe": startup}))]));
    node.until("again", restarted).await;
    node.event("Killing", "Container app failed startup probe, will be restarted").await;
    node.delete(1).await;
}

#[tokio::test]
async fn a_sidecar_lets_the_others_start_when_its_startup_probe_has_succeeded() {
    let node = Node::new().await;
    node.peer.answer("/started", 500);
    let _agent = node.agent().await;
    let mut startup = http("/started");
    startup["failureThreshold"] = json!(1000);
    let more = json!({"startupProbe": startup, "restartPolicy": "Always"});
    let mut pod = crate::pod("web", "u1");
    pod["spec"]["initContainers"] = json!([node.container("side", "waits", &more)]);
    pod["spec"]["containers"] = json!([node.container("app", "waits", &json!({}))]);
    node.api.apply(pod);
    node.peer.until("/started", 2).await;
    let app = node.api.pod("web").unwrap()["status"]["containerStatuses"][0].clone();
    assert_eq!(app["state"]["waiting"]["reason"], "PodInitializing", "{app}");
    node.peer.answer("/started", 200);
    node.until("app", |status| !status["state"]["running"].is_null()).await;
    node.delete(1).await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_and_counts_for_nothing() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let exec = json!({"exec": {"command": ["ls"]}, "periodSeconds": 1, "failureThreshold": 1});
    let named = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1});
    let more = json!({"livenessProbe": exec, "readinessProbe": named});
    node.pod("Always", &json!([node.container("app", "waits", &more)]));
    let said = "Liveness probe errored and resulted in unknown state: exec is not supported yet by \
                this node: use httpGet, tcpSocket (probes only) or grpc (probes only)";
    node.event("Unhealthy", said).await;
    let said = "Readiness probe errored and resulted in unknown state: port http not found";
    node.event("Unhealthy", said).await;
    let status = node.until("runs", |status| status["started"] == true).await;
    assert_eq!((&status["ready"], &status["restartCount"]), (&json!(false), &json!(0)));
    node.delete(1).await;
}

#[tokio::test]
async fn a_post_start_hook_holds_back_the_container_and_those_after_it() {
    let node = Node::new().await;
    node.peer.answer("/hello", 0);
    let agent = node.agent().await;
    let more =
        json!({"lifecycle": {"postStart": hook("/hello")}, "readinessProbe": http("/ready")});
    let containers =
        json!([node.container("app", "waits", &more), node.container("next", "waits", &json!({}))]);
    node.pod("Always", &containers);
    node.peer.until("/hello", 1).await;
    let status = node.until("runs", |status| !status["state"]["running"].is_null()).await;
    assert_eq!((&status["started"], &status["ready"]), (&json!(false), &json!(false)));
    let next = |api: &Api| api.pod("web").unwrap()["status"]["containerStatuses"][1].clone();
    assert_eq!(next(&node.api)["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(node.peer.asked(), ["/hello"]);
    // An agent that ends in the middle of it leaves it to the next.
    drop(agent);
    node.peer.answer("/hello", 404);
    let _next = node.agent().await;
    node.until("ready", is_ready).await;
    assert_eq!(node.peer.count("/hello"), 2);
    node.api.until("next", |api| (next(api)["ready"] == true).then_some(())).await;
    node.delete(1).await;
}

#[tokio::test]
async fn a_post_start_hook_that_fails_ends_its_container_and_is_told() {
    let node = Node::new().await;
    let agent = node.agent().await;
    let more = json!({"lifecycle": {"postStart": {"exec": {"command": ["ls", "-l"]}}}});
    node.pod("Always", &json!([node.container("app", "waits", &more)]));
    let reason = "/containerStatuses/0/state/waiting/reason";
    let told = node.api.status("web", reason, "PostStartHookError").await;
    let message = &told["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let unsupported = "exec is not supported yet by this node: use httpGet, tcpSocket (probes only) \
                       or grpc (probes only)";
    let failed =
        "Exec lifecycle hook ([ls -l]) for Container \"app\" in Pod \"web_default(u1)\" failed";
    assert_eq!(message.as_str().unwrap(), format!("{failed} - error: {unsupported}"));
    node.event("FailedPostStartHook", &format!("PostStartHook failed: {unsupported}")).await;
    node.event("Killing", "FailedPostStartHook").await;
    drop(agent);
    let _next = node.agent().await;
    node.until("again", |status| status["restartCount"] == 1).await;
    node.delete(1).await;
}

#[tokio::test]
async fn hooks_that_cannot_be_are_told() {
    let node = Node::new().await;
    let _agent = node.agent().await;
    let port = node.peer.port;
    let pre_stop = json!({"httpGet": {"path": "/bye", "port": "http"}});
    let more = json!({"lifecycle": {"postStart": {"sleep": {"seconds": 0}}, "preStop": pre_stop}});
    let tcp = json!({"lifecycle": {"preStop": {"tcpSocket": {"port": port}}}});
    let containers =
        json!([node.container("app", "waits", &more), node.container("tcp", "waits", &tcp)]);
    node.pod("Always", &containers);
    node.until("ready", is_ready).await;
    node.api.status("web", "/phase", "Running").await;
    node.delete(30).await;
    node.event("FailedPreStopHook", "PreStopHook failed").await;
    let said = "PreStopHook failed: invalid handler: tcpSocket is no lifecycle hook";
    node.event("FailedPreStopHook", said).await;
}

#[tokio::test]
async fn pre_stop_hooks_run_at_once_before_any_stop_notice_and_sidecars_stop_last() {
    let node = Node::new().await;
    for path in ["/app", "/side"] {
        node.peer.answer(path, 0);
    }
    let agent = node.agent().await;
    let pre_stop = |path: &str| json!({"lifecycle": {"preStop": hook(path)}});
    let mut side = node.container("side", "waits", &pre_stop("/side"));
    side["restartPolicy"] = json!("Always");
    let mut pod = crate::pod("web", "u1");
    pod["spec"]["initContainers"] = json!([side]);
    pod["spec"]["containers"] = json!([node.container("app", "waits", &pre_stop("/app"))]);
    node.api.apply(pod);
    node.until("runs", |status| status["started"] == true).await;
    node.api.delete("web", 600);
    node.peer.until("/app", 1).await;
    node.peer.until("/side", 1).await;
    let states = |api: &Api| {
        let status = &api.pod("web").unwrap()["status"];
        let runs = |list: &str| !status[list][0]["state"]["running"].is_null();
        (runs("containerStatuses"), runs("initContainerStatuses"))
    };
    assert_eq!(states(&node.api), (true, true));
    // The hooks of an agent that has ended are run again by the next. Of these the sidecar's is done first.
    drop(agent);
    node.peer.answer("/side", 200);
    node.peer.answer("/app", 200);
    let _next = node.agent().await;
    node.api.until("removal", |api| api.pod("web").is_none().then_some(())).await;
    assert_eq!((node.peer.count("/app"), node.peer.count("/side")), (2, 2));
    let killing: Vec<_> =
        node.api.events().into_iter().filter(|(reason, _)| reason == "Killing").collect();
    let said = |name: &str| ("Killing".to_owned(), format!("Stopping container {name}"));
    assert!(killing.contains(&said("app")) && killing.contains(&said("side")), "{killing:?}");
}

#[tokio::test]
async fn a_pre_stop_hook_is_broken_off_when_the_grace_is_over() {
    let node = Node::new().await;
    node.peer.answer("/bye", 0);
    let _agent = node.agent().await;
    let more = json!({"lifecycle": {"preStop": hook("/bye")}});
    node.pod("Always", &json!([node.container("app", "waits", &more)]));
    node.until("runs", is_ready).await;
    node.delete(1).await;
    assert_eq!(node.peer.count("/bye"), 1);
    let last = node.api.requests(&Method::PATCH, "/pods/web/status");
    let end = &last.last().unwrap().1["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["exitCode"], 0, "there was time left to end by itself: {end}");
}

#[tokio::test]
async fn a_stop_that_one_agent_began_the_next_brings_to_its_end() {
    let node = Node::new().await;
    node.peer.answer("/alive", 500);
    node.peer.answer("/bye", 0);
    let agent = node.agent().await;
    let mut probe = http("/alive");
    probe["failureThreshold"] = json!(1);
    let more = json!({"livenessProbe": probe, "lifecycle": {"preStop": hook("/bye")}});
    node.pod("Always", &json!([node.container("app", "waits", &more)]));
    node.peer.until("/bye", 1).await;
    drop(agent);
    // It lives again, but its end was begun.
    node.peer.answer("/alive", 200);
    node.peer.answer("/bye", 200);
    let _next = node.agent().await;
    node.until("again", restarted).await;
    assert_eq!(node.peer.count("/bye"), 2);
    node.delete(1).await;
}
