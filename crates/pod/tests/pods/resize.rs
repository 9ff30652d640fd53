//! Pods whose resources, or whose image, are changed while they run.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Agent;
use crate::api::Api;
use crate::guests::WAITS;
use crate::registry::Registry;
use crate::root::Root;

/// Eight pages, and four times as many as soon as it may.
const PATIENT: &str = r#"(module (memory 8)
    (func (export "_start") (loop (br_if 0 (i32.eq (memory.grow (i32.const 24)) (i32.const -1))))))"#;

struct Machine {
    api: Api,
    registry: Registry,
    root: Root,
}

impl Machine {
    async fn new() -> Self {
        let registry =
            Registry::start(&[("patient", PATIENT), ("waits", WAITS), ("other", WAITS)]).await;
        Self { api: Api::start().await, registry, root: Root::new() }
    }

    async fn agent(&self) -> Agent {
        Agent::with(&self.api, self.root.path(), &[&self.registry.host]).await
    }

    /// A pod of one container with these resources.
    fn pod(&self, name: &str, image: &str, resources: &Value) -> Value {
        let mut pod = crate::pod(name, name);
        pod["spec"]["restartPolicy"] = json!("Never");
        pod["spec"]["terminationGracePeriodSeconds"] = json!(5);
        pod["spec"]["containers"] = json!([{
            "name": "app", "image": self.registry.image(image), "imagePullPolicy": "IfNotPresent",
            "stdin": true, "resources": resources,
        }]);
        pod["status"]["qosClass"] = json!("Burstable");
        pod
    }

    async fn run(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.api.apply(pod);
        self.api.status(&name, "/phase", "Running").await;
    }

    /// What `kubectl patch` does to the pod's one container.
    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = self.api.pod(name).unwrap();
        change(&mut pod["spec"]["containers"][0]);
        let generation = pod["metadata"]["generation"].as_u64().unwrap();
        pod["metadata"]["generation"] = json!(generation + 1);
        self.api.apply(pod);
    }

    fn resize(&self, name: &str, resources: Value) {
        self.change(name, |container| container["resources"] = resources);
    }

    /// Waits until the pod's condition has this reason; none where there shall be no such condition.
    async fn condition(&self, name: &str, kind: &str, reason: Option<&str>) -> Value {
        let what = format!("{name} {kind} {reason:?}");
        self.api
            .until(&what, |api| {
                let pod = api.pod(name)?;
                let all = pod["status"]["conditions"].as_array()?.clone();
                let found = all.into_iter().find(|condition| condition["type"] == kind);
                match (found, reason) {
                    (None, None) => Some(Value::Null),
                    (Some(found), Some(reason)) if found["reason"] == reason => Some(found),
                    _ => None,
                }
            })
            .await
    }

    async fn event(&self, reason: &str) -> String {
        let told = self
            .api
            .until(reason, |api| api.events().into_iter().find(|(known, _)| known == reason));
        told.await.1
    }

    fn container(&self, name: &str) -> Value {
        self.api.pod(name).unwrap()["status"]["containerStatuses"][0].clone()
    }
}

fn memory(limit: &str) -> Value {
    json!({"requests": {"memory": limit}, "limits": {"memory": limit}})
}

#[tokio::test]
async fn a_running_guest_gets_the_memory_that_it_is_given() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    machine.run(machine.pod("web", "patient", &memory("1Mi"))).await;
    let told = machine.container("web");
    assert_eq!(told["allocatedResources"], json!({"memory": "1Mi"}));
    assert_eq!(told["resources"], memory("1Mi"));
    machine.resize("web", memory("4Mi"));
    let ended = machine.api.status("web", "/phase", "Succeeded").await;
    let told = &ended["status"]["containerStatuses"][0];
    assert_eq!((&told["restartCount"], &told["resources"]), (&json!(0), &memory("4Mi")));
    assert_eq!(ended["status"]["observedGeneration"], 2);
    let event = machine.event("ResizeStarted").await;
    assert!(event.starts_with("Pod resize started: {\"containers\":[{\"name\":\"app\""), "{event}");
    assert!(event.contains("\"generation\":2"), "{event}");
}

#[tokio::test]
async fn memory_that_is_in_use_is_not_taken_away_and_the_next_agent_goes_on() {
    let machine = Machine::new().await;
    let agent = machine.agent().await;
    machine.run(machine.pod("web", "patient", &memory("1Mi"))).await;
    machine.resize("web", memory("256Ki"));
    let told = machine.condition("web", "PodResizeInProgress", Some("Error")).await;
    let why = "container app: its memory cannot be limited to 262144 bytes while it uses 524288";
    assert_eq!((&told["message"], &told["status"]), (&json!(why), &json!("True")));
    assert_eq!(machine.container("web")["resources"], memory("1Mi"));
    assert_eq!(machine.container("web")["allocatedResources"], json!({"memory": "256Ki"}));
    drop(agent);
    machine.resize("web", memory("768Ki"));
    let _agent = machine.agent().await;
    machine.condition("web", "PodResizeInProgress", None).await;
    machine.event("ResizeCompleted").await;
    assert_eq!(machine.container("web")["resources"], memory("768Ki"));
    assert_eq!(machine.container("web")["restartCount"], 0);
}

#[tokio::test]
async fn what_the_node_does_not_have_is_infeasible_and_what_others_have_is_deferred() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
    machine.run(machine.pod("web", "waits", &cpu("3"))).await;
    machine.run(machine.pod("other", "waits", &cpu("3"))).await;
    machine.resize("web", cpu("9"));
    let never = machine.condition("web", "PodResizePending", Some("Infeasible")).await;
    let why = "Node didn't have enough capacity: cpu, requested: 9000, capacity: 8000";
    assert_eq!(never["message"], why);
    let told = |word: &str, cpu: &str, why: &str| {
        let container = format!(r#"{{"name":"app","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}"#);
        let generation = machine.api.pod("web").unwrap()["metadata"]["generation"].clone();
        format!(
            r#"Pod resize {word}: {{"containers":[{container}],"generation":{generation},"error":"{why}"}}"#
        )
    };
    assert_eq!(machine.event("ResizeInfeasible").await, told("Infeasible", "9", why));

    machine.resize("web", cpu("6"));
    let later = machine.condition("web", "PodResizePending", Some("Deferred")).await;
    let why = "Node didn't have enough resource: cpu, requested: 6000, used: 3000, capacity: 8000";
    assert_eq!(later["message"], why);
    assert_eq!(machine.event("ResizeDeferred").await, told("Deferred", "6", why));
    assert_eq!(machine.container("web")["allocatedResources"], json!({"cpu": "3"}));

    machine.api.delete("other", 1);
    machine.condition("web", "PodResizePending", None).await;
    machine.event("ResizeCompleted").await;
    assert_eq!(machine.container("web")["allocatedResources"], json!({"cpu": "6"}));

    // Without cgroups nobody would keep it.
    machine.resize("web", json!({"requests": {"cpu": "6"}, "limits": {"cpu": "7"}}));
    let told = machine.condition("web", "PodResizePending", Some("Infeasible")).await;
    assert!(told["message"].as_str().unwrap().contains("no cgroups"), "{told}");
}

#[tokio::test]
async fn a_deferred_resize_outlives_its_agent() {
    let machine = Machine::new().await;
    let agent = machine.agent().await;
    let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
    machine.run(machine.pod("web", "waits", &cpu("3"))).await;
    machine.run(machine.pod("other", "waits", &cpu("3"))).await;
    machine.resize("web", cpu("6"));
    machine.condition("web", "PodResizePending", Some("Deferred")).await;
    drop(agent);
    let agent = machine.agent().await;
    // The node has become larger meanwhile.
    agent.registered.send_modify(|known| {
        let mut node = (**known.as_ref().unwrap()).clone();
        let allocatable = json!({"cpu": "16", "memory": "8Gi", "pods": "110"});
        node.status.as_mut().unwrap().allocatable = serde_json::from_value(allocatable).unwrap();
        *known = Some(Arc::new(node));
    });
    machine.resize("other", cpu("4"));
    machine.condition("other", "PodResizePending", None).await;
    let pod = machine.api.pod("web").unwrap();
    machine.api.apply(pod);
    machine.condition("web", "PodResizePending", None).await;
    let given = || machine.container("web")["allocatedResources"] == cpu("6")["requests"];
    machine.api.until("given", |_| given().then_some(())).await;
}

#[tokio::test]
async fn a_container_runs_anew_where_its_resize_policy_asks_for_it() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    let mut pod = machine.pod("web", "waits", &memory("1Mi"));
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    pod["spec"]["containers"][0]["resizePolicy"] =
        json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    machine.run(pod).await;
    machine.resize("web", memory("2Mi"));
    let again = || {
        let told = machine.container("web");
        (told["restartCount"] == 1 && !told["state"]["running"].is_null()).then_some(())
    };
    machine.api.until("run again", |_| again()).await;
    let event = machine.event("Killing").await;
    assert_eq!(event, "Container app resize requires restart, will be restarted");
    machine.condition("web", "PodResizeInProgress", None).await;
    machine.event("ResizeCompleted").await;
    assert_eq!(machine.container("web")["resources"], memory("2Mi"));
}

#[tokio::test]
async fn a_container_whose_image_is_changed_runs_anew_whatever_the_policy_says() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    machine.run(machine.pod("web", "waits", &json!({}))).await;
    let first = machine.container("web");
    machine.change("web", |container| container["image"] = json!(machine.registry.image("other")));
    let image = machine.registry.image("other");
    let told = machine
        .api
        .until("the other image", |api| {
            let told = api.pod("web")?["status"]["containerStatuses"][0].clone();
            (told["image"] == image && !told["state"]["running"].is_null()).then_some(told)
        })
        .await;
    assert_eq!(told["restartCount"], 1);
    assert_eq!(told["lastState"]["terminated"]["containerID"], first["containerID"]);
    let event = machine.event("Killing").await;
    assert_eq!(event, "Container app definition changed, will be restarted");
    assert_eq!(machine.api.pod("web").unwrap()["status"]["phase"], "Running");
}
