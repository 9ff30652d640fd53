//! What `kubectl get pods` and `kubectl describe pod` say of a pod and its containers: every reason and condition that a pod
//! can be brought to by its own making.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use kube::ResourceExt;
use nodule_e2e::agent::Options;
use nodule_e2e::test::{self, Test};
use nodule_e2e::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::guests::artifact;

/// Asks for something that no host has.
const ALIEN: &str = r#"(module (import "env" "alien" (func)) (func (export "_start")) (memory (export "memory") 1))"#;
/// Begins with 64 MiB.
const LARGE: &str = r#"(module (func (export "_start")) (memory (export "memory") 1024))"#;

/// A pod, and all that must be said of it at one time or another.
type Case = (&'static str, Value, &'static [&'static str]);

#[tokio::test]
async fn what_a_container_waits_for_is_said() -> Result<()> {
    test::run(async |test| {
        let cases = waiting(test).await?;
        all_said(test, cases).await
    })
    .await
}

#[tokio::test]
async fn how_a_container_ended_is_said() -> Result<()> {
    test::run(async |test| {
        let cases = ended(test).await?;
        all_said(test, cases).await
    })
    .await
}

#[tokio::test]
async fn why_a_pod_was_not_taken_on_is_said() -> Result<()> {
    test::run(async |test| {
        // The port goes to who asks first, so that one runs before the other is there.
        all_said(test, vec![("port", on_a_port(test), &["phase=Running"])]).await?;
        all_said(test, rejected(test)).await
    })
    .await
}

#[tokio::test]
async fn a_full_node_takes_no_pod_but_a_critical_one_for_which_another_goes() -> Result<()> {
    let options = Options { max_pods: 1, ..Options::default() };
    test::run_with(&options, async |test| {
        let spec = || {
            let mut spec = test.spec(&["lines", "0", "1000"]);
            spec["nodeName"] = json!(test.agent.name());
            spec
        };
        all_said(test, vec![("first", spec(), &["Ready=True"])]).await?;
        let full = &["phase=Failed", "reason=OutOfpods"];
        all_said(test, vec![("second", spec(), full)]).await?;
        let mut critical = spec();
        critical["priorityClassName"] = json!("system-node-critical");
        test.pod("critical", critical).await?;
        let wanted = [
            ("first", &["reason=Preempting", "DisruptionTarget=True TerminationByKubelet"][..]),
            ("critical", &["Ready=True"]),
        ];
        said(test, &wanted).await
    })
    .await
}

#[tokio::test]
async fn a_container_whose_end_nobody_saw_has_one_all_the_same() -> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["restartPolicy"] = json!("Never");
        all_said(test, vec![("lost", spec, &["Ready=True"])]).await?;
        let zygote = test.agent.zygote().context("a zygote")?;
        test.agent.kill()?;
        for process in [vec![zygote], test.agent.sandboxes()].concat() {
            ensure!(process.end(Signal::KILL, wait::PATIENCE)?, "{process:?} still runs");
        }
        test.agent.start_again()?;
        said(test, &[("lost", &["phase=Failed", "main terminated ContainerStatusUnknown 137"])])
            .await
    })
    .await
}

#[tokio::test]
async fn a_readiness_gate_holds_a_pod_back_until_its_condition_is_true() -> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["readinessGates"] = json!([{ "conditionType": "example.com/told" }]);
        let closed = &["ContainersReady=True", "Ready=False ReadinessGatesNotReady"];
        all_said(test, vec![("gated", spec, closed)]).await?;
        let told = json!({ "status": { "conditions": [{ "type": "example.com/told", "status": "True" }] } });
        test.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", &told.to_string()])?;
        said(test, &[("gated", &["Ready=True", "example.com/told=True"])]).await
    })
    .await
}

#[tokio::test]
async fn a_start_is_told_in_events_that_tools_understand() -> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["containers"][0]["imagePullPolicy"] = json!("Always");
        test.pod("it", spec).await?;
        let image = test.image("examples/probe:p1");
        let pulled = format!("Successfully pulled image \"{image}\" in ");
        let wanted = [
            ("Pulling", format!("Pulling image \"{image}\"")),
            ("Pulled", pulled),
            ("Created", "Container created".to_owned()),
            ("Started", "Container started".to_owned()),
        ];
        let is_ours = |event: &Event| {
            let (source, object) =
                (event.source.clone().unwrap_or_default(), &event.involved_object);
            source.component.as_deref() == Some("kubelet")
                && source.host.as_deref() == Some(test.agent.name())
                && object.field_path.as_deref() == Some("spec.containers{main}")
        };
        let says = |event: &Event, reason: &str, message: &str| {
            let text = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some(reason) && text.starts_with(message) && is_ours(event)
        };
        let all = |events: &[Event]| {
            let said = |(reason, message): &(&str, String)| {
                events.iter().any(|event| says(event, reason, message))
            };
            wanted.iter().all(said)
        };
        wait::until(test.api::<Event>(), wait::all(), "Events of a start", all).await.map(drop)
    })
    .await
}

async fn waiting(test: &Test<'_>) -> Result<Vec<Case>> {
    let alien = test.cluster.registry().push("tests/alien:1", &artifact(ALIEN)?).await?;
    let image = |name: &str, policy: &str| {
        let mut spec = test.spec(&[]);
        spec["containers"][0]["image"] = json!(name);
        spec["containers"][0]["imagePullPolicy"] = json!(policy);
        spec
    };
    let mut volume = test.spec(&[]);
    volume["volumes"] = json!([{ "name": "none", "configMap": { "name": "none" } }]);
    let mut config = test.spec(&[]);
    config["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "none" } }]);
    let mut init = test.spec(&[]);
    init["initContainers"] = image(&test.image("none:1"), "Never")["containers"].clone();
    init["initContainers"][0]["name"] = json!("first");
    Ok(vec![
        (
            "volume",
            volume,
            &[
                "phase=Pending",
                "main waiting ContainerCreating",
                "PodReadyToStartContainers=False",
                "Ready=False ContainersNotReady",
            ],
        ),
        (
            "config",
            config,
            &["main waiting CreateContainerConfigError", "PodReadyToStartContainers=True"],
        ),
        (
            "init",
            init,
            &[
                "first waiting ErrImageNeverPull",
                "main waiting PodInitializing",
                "Initialized=False ContainersNotInitialized",
            ],
        ),
        (
            "absent",
            image(&test.image("none:1"), "Always"),
            &["main waiting ErrImagePull", "main waiting ImagePullBackOff"],
        ),
        (
            "away",
            image("127.0.0.1:1/none:1", "Always"),
            &["main waiting RegistryUnavailable", "main waiting ImagePullBackOff"],
        ),
        ("misnamed", image("No/Name", "Always"), &["main waiting InvalidImageName"]),
        ("alien", image(&alien, "Always"), &["main waiting CreateContainerError"]),
        (
            "crashes",
            test.spec(&["exit", "3"]),
            &[
                "main waiting CrashLoopBackOff",
                "main before Error 3",
                "PodReadyToStartContainers=True",
                "PodScheduled=True",
                "Initialized=True",
            ],
        ),
    ])
}

async fn ended(test: &Test<'_>) -> Result<Vec<Case>> {
    let large = test.cluster.registry().push("tests/large:1", &artifact(LARGE)?).await?;
    let never = |arguments: &[&str]| {
        let mut spec = test.spec(arguments);
        spec["restartPolicy"] = json!("Never");
        spec
    };
    let limited = |arguments: &[&str]| {
        let mut spec = never(arguments);
        spec["containers"][0]["resources"] = json!({ "limits": { "memory": "32Mi" } });
        spec
    };
    let mut does_not_start = limited(&[]);
    does_not_start["containers"][0]["image"] = json!(large);
    let mut late = never(&["spin"]);
    late["activeDeadlineSeconds"] = json!(2);
    let mut sidecar = never(&["exit", "0"]);
    sidecar["initContainers"] = test.spec(&["lines", "0", "1000"])["containers"].clone();
    sidecar["initContainers"][0]["name"] = json!("side");
    sidecar["initContainers"][0]["restartPolicy"] = json!("Always");
    Ok(vec![
        (
            "completes",
            never(&["exit", "0"]),
            &[
                "phase=Succeeded",
                "main terminated Completed 0",
                "Initialized=True PodCompleted",
                "ContainersReady=False PodCompleted",
                "Ready=False PodCompleted",
                "PodReadyToStartContainers=False",
            ],
        ),
        (
            "fails",
            never(&["exit", "3"]),
            &["phase=Failed", "main terminated Error 3", "Ready=False PodFailed"],
        ),
        ("eats", limited(&["alloc", "256"]), &["phase=Failed", "main terminated OOMKilled 137"]),
        ("begins", does_not_start, &["phase=Failed", "main terminated StartError 128"]),
        ("late", late, &["phase=Failed", "reason=DeadlineExceeded", "main terminated Error 137"]),
        ("sidecar", sidecar, &["side running", "phase=Succeeded", "main terminated Completed 0"]),
        (
            "together",
            together(test),
            &[
                "AllContainersRestarting=True RestartAllContainersStarted",
                "main waiting RestartingAllContainers",
            ],
        ),
    ])
}

/// Of two containers the one asks that both run again, and the other takes its time.
fn together(test: &Test<'_>) -> Value {
    let mut spec = test.spec(&["exit", "42"]);
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["restartPolicy"] = json!("Never");
    spec["containers"][0]["restartPolicyRules"] = json!([
        { "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } },
    ]);
    let mut other = test.spec(&["spin"])["containers"][0].clone();
    other["name"] = json!("other");
    spec["containers"] = json!([other, spec["containers"][0]]);
    spec
}

/// A pod that no scheduler was asked about, with a port of the node.
fn on_a_port(test: &Test<'_>) -> Value {
    let mut spec = test.spec(&["lines", "0", "1000"]);
    spec["nodeName"] = json!(test.agent.name());
    spec["containers"][0]["ports"] = json!([{ "containerPort": 8080, "hostPort": 8080 }]);
    spec
}

/// Pods that no scheduler was asked about.
fn rejected(test: &Test<'_>) -> Vec<Case> {
    let with = |key: &str, value: Value| {
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["nodeName"] = json!(test.agent.name());
        spec[key] = value;
        spec
    };
    let container = |key: &str, value: Value| {
        let mut spec = with("restartPolicy", json!("Never"));
        spec["containers"][0][key] = value;
        spec
    };
    let asks =
        |what: &str, amount: &str| container("resources", json!({ "requests": { what: amount } }));
    let profile = json!({ "appArmorProfile": { "type": "Localhost", "localhostProfile": "none" } });
    let sysctl = json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] });
    let groups = json!({ "supplementalGroupsPolicy": "Strict" });
    vec![
        ("cpu", asks("cpu", "1k"), &["phase=Failed", "reason=OutOfcpu"]),
        ("memory", asks("memory", "1Pi"), &["phase=Failed", "reason=OutOfmemory"]),
        (
            "storage",
            asks("ephemeral-storage", "1Ei"),
            &["phase=Failed", "reason=OutOfephemeral-storage"],
        ),
        (
            "elsewhere",
            with("nodeSelector", json!({ "disk": "none" })),
            &["phase=Failed", "reason=NodeAffinity"],
        ),
        ("same-port", on_a_port(test), &["phase=Failed", "reason=NodePorts"]),
        (
            "native",
            with("os", json!({ "name": "linux" })),
            &["phase=Failed", "reason=PodOSNotSupported"],
        ),
        ("confined", with("securityContext", profile), &["phase=Failed", "reason=AppArmor"]),
        ("tuned", with("securityContext", sysctl), &["phase=Failed", "reason=SysctlForbidden"]),
        (
            "strict",
            with("securityContext", groups),
            &["phase=Failed", "reason=SupplementalGroupsPolicyNotSupported"],
        ),
    ]
}

/// Makes the pods of all cases, and waits until all was said of each.
async fn all_said(test: &Test<'_>, cases: Vec<Case>) -> Result<()> {
    let mut wanted = Vec::new();
    for (name, spec, words) in cases {
        test.pod(name, spec).await.with_context(|| format!("make pod {name}"))?;
        wanted.push((name, words));
    }
    said(test, &wanted).await
}

/// Waits until all of this was said of the pods; for some of it is said for a moment only.
async fn said(test: &Test<'_>, wanted: &[(&str, &[&str])]) -> Result<()> {
    let mut heard = BTreeMap::<String, BTreeSet<String>>::new();
    let missing = |heard: &BTreeMap<String, BTreeSet<String>>| {
        let all =
            wanted.iter().flat_map(|(pod, words)| words.iter().map(move |word| (*pod, *word)));
        let missing =
            all.filter(|(pod, word)| !heard.get(*pod).is_some_and(|said| said.contains(*word)));
        missing.map(|(pod, word)| format!("{pod}: {word}")).collect::<Vec<_>>()
    };
    let pods = test.pods_until("", "all to be said", |pods| {
        for pod in pods {
            heard.entry(pod.name_any()).or_default().extend(words(pod));
        }
        missing(&heard).is_empty()
    });
    let outcome = pods.await;
    outcome.with_context(|| format!("not said: {:?}; said: {heard:?}", missing(&heard)))?;
    Ok(())
}

/// What a pod's status says, each in a few words.
fn words(pod: &Pod) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    let mut words = vec![
        format!("phase={}", status.phase.unwrap_or_default()),
        format!("reason={}", status.reason.unwrap_or_default()),
    ];
    for condition in status.conditions.into_iter().flatten() {
        let reason = condition.reason.unwrap_or_default();
        words.push(
            format!("{}={} {reason}", condition.type_, condition.status).trim_end().to_owned(),
        );
    }
    let lists = [status.init_container_statuses, status.container_statuses];
    words.extend(lists.into_iter().flatten().flatten().flat_map(|container| states(&container)));
    words
}

fn states(container: &ContainerStatus) -> Vec<String> {
    let state = |verb: &str, state: Option<&ContainerState>| {
        let state = state?;
        let name = &container.name;
        if let Some(waiting) = &state.waiting {
            return Some(format!(
                "{name} waiting {}",
                waiting.reason.as_deref().unwrap_or_default()
            ));
        }
        if let Some(end) = &state.terminated {
            let reason = end.reason.as_deref().unwrap_or_default();
            return Some(format!("{name} {verb} {reason} {}", end.exit_code));
        }
        state.running.as_ref().map(|_| format!("{name} running"))
    };
    let now = state("terminated", container.state.as_ref());
    now.into_iter().chain(state("before", container.last_state.as_ref())).collect()
}
