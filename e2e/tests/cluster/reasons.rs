//! What `kubectl get pods` and `kubectl describe pod` say of a pod and its containers: every reason and condition that a pod
//! can be brought to by its own making.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus};
use nodule_e2e::agent::Options;
use nodule_e2e::test::{self, Test};
use nodule_e2e::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::guests::artifact;
use crate::said::{Case, all_said, on_node, said};

/// Asks for something that no host has.
const ALIEN: &str = r#"(module (import "env" "alien" (func)) (func (export "_start")) (memory (export "memory") 1))"#;
/// Begins with 64 MiB.
const LARGE: &str = r#"(module (func (export "_start")) (memory (export "memory") 1024))"#;

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
        all_said(test, rejected(test)).await?;
        let labels = json!({ "kubernetes.io/os": "linux" });
        let native = json!({ "metadata": { "name": "labelled", "labels": labels }, "spec": on_node(test) });
        test.create::<Pod>(native).await?;
        let words = [
            "phase=Failed",
            "reason=PodOSSelectorNodeLabelDoesNotMatch",
            "message=Pod was rejected: Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ];
        said(test, &[("labelled", &words)]).await
    })
    .await
}

#[tokio::test]
async fn a_status_and_its_conditions_say_which_generation_of_the_pod_they_are_of() -> Result<()> {
    const OURS: [&str; 5] =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let of = |status: &PodStatus| {
        let conditions = status.conditions.iter().flatten();
        let ours = conditions.filter(|one| OURS.contains(&one.type_.as_str()));
        let mut all: Vec<_> = ours.map(|one| one.observed_generation).collect();
        all.push(status.observed_generation);
        all
    };
    test::run(async |test| {
        test.pod("web", test.spec(&["lines", "0", "1000"])).await?;
        for generation in [1, 2] {
            let all = [Some(generation); OURS.len() + 1];
            let observed = |pod: &Pod| {
                let status = pod.status.as_ref();
                pod.metadata.generation == Some(generation)
                    && status.is_some_and(|status| of(status) == all)
            };
            test.pod_until("web", &format!("generation {generation}"), observed).await?;
            // Which changes nothing but the generation.
            let later = json!({ "spec": { "activeDeadlineSeconds": 3600 } }).to_string();
            test.kubectl(&["patch", "pod", "web", "--patch", &later])?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_full_node_takes_no_pod_but_a_critical_one_for_which_another_goes() -> Result<()> {
    let options = Options { max_pods: 1, ..Options::default() };
    test::run_with(&options, async |test| {
        let spec = || on_node(test);
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
        wait::until(test.api::<Event>(), wait::all(), "Events of a start", all).await?;
        test.pod("next", test.spec(&["exit", "0"])).await?;
        let here = format!(
            "Container image \"{image}\" already present on machine and can be accessed by the pod"
        );
        let again = |events: &[Event]| events.iter().any(|event| says(event, "Pulled", &here));
        wait::until(test.api::<Event>(), wait::all(), "the Event of the next", again)
            .await
            .map(drop)
    })
    .await
}

async fn waiting(test: &Test<'_>) -> Result<Vec<Case>> {
    let mut volume = test.spec(&[]);
    volume["volumes"] = json!([{ "name": "none", "configMap": { "name": "none" } }]);
    let mut config = test.spec(&[]);
    config["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "none" } }]);
    let mut init = test.spec(&[]);
    init["initContainers"] = of_image(test, &test.image("none:1"), "Never")["containers"].clone();
    init["initContainers"][0]["name"] = json!("first");
    let mut cases: Vec<Case> = vec![
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
    ];
    cases.extend(without_an_image(test).await?);
    Ok(cases)
}

async fn without_an_image(test: &Test<'_>) -> Result<Vec<Case>> {
    let alien = test.cluster.registry().push("tests/alien:1", &artifact(ALIEN)?).await?;
    let image = |name: &str, policy: &str| of_image(test, name, policy);
    Ok(vec![
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
    ])
}

/// A pod of this image.
fn of_image(test: &Test<'_>, name: &str, policy: &str) -> Value {
    let mut spec = test.spec(&[]);
    spec["containers"][0]["image"] = json!(name);
    spec["containers"][0]["imagePullPolicy"] = json!(policy);
    spec
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
    let mut spec = on_node(test);
    spec["containers"][0]["ports"] = json!([{ "containerPort": 8080, "hostPort": 8080 }]);
    spec
}

/// Pods that no scheduler was asked about.
fn rejected(test: &Test<'_>) -> Vec<Case> {
    let with = |key: &str, value: Value| {
        let mut spec = on_node(test);
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
    ]
}
