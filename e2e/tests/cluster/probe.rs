//! Probes and hooks, as those who write them see what becomes of them.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use nodule_e2e::push::{Image, Packaging};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{paths, ports, status, wait};
use serde_json::{Value, json};

use crate::metrics;

/// A pod's spec with the HTTP program on a port of its own.
async fn web(test: &Test<'_>) -> Result<Value> {
    let program = std::fs::read(paths::guest("web.p2.wasm")?)?;
    let image = Image::of_program(Packaging::Cncf, program);
    let image = test.cluster.registry().push("tests/probed:1", &image).await?;
    let mut spec = test.spec(&[]);
    spec["containers"][0]["image"] = json!(image);
    spec["containers"][0]["ports"] = json!([{ "name": "http", "containerPort": ports::free()? }]);
    Ok(spec)
}

fn get(path: &str) -> Value {
    json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 1 })
}

fn deployment(name: &str, replicas: u32, spec: &Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": {
        "replicas": replicas,
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name } }, "spec": spec },
    }})
}

/// Waits for an Event of this reason whose message begins so.
async fn event(test: &Test<'_>, reason: &str, message: &str) -> Result<()> {
    let which = wait::all().fields(&format!("reason={reason}"));
    let said = |events: &[Event]| {
        let mut messages = events.iter().filter_map(|event| event.message.as_deref());
        messages.any(|said| said.starts_with(message))
    };
    wait::until(test.api::<Event>(), which, &format!("{reason}: {message}"), said).await?;
    Ok(())
}

fn started(pod: &Pod) -> Option<bool> {
    status::container(pod, "main")?.started
}

#[tokio::test]
async fn a_deployment_of_an_http_program_is_available_when_its_probes_succeed() -> Result<()> {
    test::run(async |test| {
        let mut spec = web(test).await?;
        let main = &mut spec["containers"][0];
        main["startupProbe"] = json!({ "tcpSocket": { "port": "http" }, "periodSeconds": 1 });
        main["livenessProbe"] = get("/hello");
        main["readinessProbe"] = get("/hello");
        test.create::<Deployment>(deployment("web", 1, &spec)).await?;
        test.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=180s"])?;
        let pods =
            test.pods_until("app=web", "a ready pod", |pods| pods.iter().all(status::is_ready));
        let pods = pods.await?;
        assert_eq!(pods.iter().map(status::restarts).sum::<i32>(), 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn probes_are_counted_for_whoever_may_get_the_nodes_metrics() -> Result<()> {
    test::run(async |test| {
        let mut spec = web(test).await?;
        spec["containers"][0]["readinessProbe"] = get("/hello");
        test.pod("web", spec).await?;
        test.pod_until("web", "to be ready", status::is_ready).await?;
        let shown = metrics::shown(test, "/metrics/probes").await?;
        let labels = format!(r#"container="main",namespace="{}",pod="web","#, test.namespace);
        for (wanted, rest) in [
            (
                format!("prober_probe_total{{{labels}"),
                r#"probe_type="Readiness",result="successful""#,
            ),
            (format!("prober_probe_duration_seconds_count{{{labels}"), r#"probe_type="Readiness""#),
        ] {
            let found = shown.lines().any(|line| line.starts_with(&wanted) && line.contains(rest));
            ensure!(found, "{wanted}{rest}: {shown}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_program_that_is_not_alive_is_run_again_and_told_of() -> Result<()> {
    test::run(async |test| {
        let mut spec = web(test).await?;
        let mut probe = get("/no-such-path");
        probe["failureThreshold"] = json!(2);
        spec["containers"][0]["livenessProbe"] = probe;
        test.pod("sick", spec).await?;
        let again = |pod: &Pod| status::restarts(pod) >= 1;
        test.pod_until("sick", "to have been run again", again).await?;
        event(test, "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 404")
            .await?;
        event(test, "Killing", "Container main failed liveness probe, will be restarted").await?;
        let told = test.kubectl(&["describe", "pod", "sick"])?;
        ensure!(told.contains("failed liveness probe, will be restarted"), "{told}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_waits_for_its_startup_probe_and_an_agents_restart_changes_nothing() -> Result<()> {
    test::run(async |test| {
        let port = ports::free()?;
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["containers"][0]["startupProbe"] = json!({
            "tcpSocket": { "port": port, "host": "127.0.0.1" },
            "periodSeconds": 1, "failureThreshold": 1000,
        });
        // That of the API server, whose certificate is of an authority of its own.
        let server = test.cluster.server()?;
        let (_, api) = server.rsplit_once(':').context("the API server's port")?;
        let api: u16 = api.trim_end_matches('/').parse()?;
        spec["containers"][0]["readinessProbe"] = json!({
            "httpGet": { "path": "/readyz", "port": api, "host": "127.0.0.1", "scheme": "HTTPS" },
            "periodSeconds": 1, "timeoutSeconds": 30,
        });
        test.pod("slow", spec).await?;
        event(
            test,
            "Unhealthy",
            &format!(
                "Startup probe failed: dial tcp 127.0.0.1:{port}: connect: connection refused"
            ),
        )
        .await?;
        let pod = test.pod_until("slow", "to run", |pod| status::running(pod).is_some()).await?;
        assert_eq!((started(&pod), status::is_ready(&pod)), (Some(false), false));
        let server = TcpListener::bind(("127.0.0.1", port))?;
        test.pod_until("slow", "to be ready", status::is_ready).await?;
        drop(server);
        test.agent.kill()?;
        let before = test.api::<Pod>().get("slow").await?;
        test.agent.start_again()?;
        wait::found("the pod to be adopted", || {
            test.agent.log().contains("container adopted").then_some(())
        })
        .await?;
        let lines = test.kubectl(&["logs", "slow"])?.lines().count();
        wait::found("more lines", || {
            let log = test.kubectl(&["logs", "slow"]).ok()?;
            (log.lines().count() > lines + 2).then_some(())
        })
        .await?;
        let after = test.api::<Pod>().get("slow").await?;
        assert_eq!(since(&after), since(&before), "it was ready all the time");
        assert_eq!((started(&after), status::restarts(&after)), (Some(true), 0));
        Ok(())
    })
    .await
}

/// Since when the pod is Ready, or is not.
fn since(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status.clone(), ready.last_transition_time.as_ref()?.0.to_string()))
}

#[tokio::test]
async fn a_hook_that_fails_after_the_start_is_told_and_one_before_the_end_is_waited_for()
-> Result<()> {
    test::run(async |test| {
        let port = ports::free()?;
        let mut fails = test.spec(&["lines", "0", "1000"]);
        fails["containers"][0]["lifecycle"] = json!({
            "postStart": { "httpGet": { "path": "/", "port": port, "host": "127.0.0.1" } } });
        test.pod("fails", fails).await?;
        let waits = |pod: &Pod| {
            status::waiting(pod).and_then(|waiting| waiting.reason.as_deref())
                == Some("PostStartHookError")
        };
        let pod = test.pod_until("fails", "to wait for its hook's sake", waits).await?;
        let message = status::waiting(&pod).and_then(|waiting| waiting.message.clone());
        let message = message.context("a message")?;
        ensure!(message.contains("connection refused"), "{message}");
        event(test, "FailedPostStartHook", "PostStartHook failed").await?;

        let mut naps = test.spec(&["lines", "0", "1000"]);
        naps["terminationGracePeriodSeconds"] = json!(30);
        naps["containers"][0]["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 3 } } });
        naps["restartPolicy"] = json!("Never");
        let held = json!({ "name": "naps", "finalizers": ["nodule.dev/test"],
            "annotations": { "nodule.dev/stop": "kill" } });
        test.create::<Pod>(json!({ "metadata": held, "spec": naps })).await?;
        test.pod_until("naps", "to run", |pod| status::running(pod).is_some()).await?;
        test.kubectl(&["delete", "pod", "naps", "--wait=false"])?;
        let pod = test
            .pod_until("naps", "to have ended", |pod| status::terminated(pod).is_some())
            .await?;
        let asked = pod.metadata.deletion_timestamp.as_ref().context("a deletion")?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.context("a grace")?;
        let ended = status::terminated(&pod).and_then(|end| end.finished_at.as_ref());
        let ended = ended.context("an end")?.0.as_second();
        // The API server says when the grace is over. The nap was taken, and the grace was not waited for.
        let took = ended - (asked.as_second() - grace);
        ensure!((2..30).contains(&took), "{took} s");
        event(test, "Killing", "Stopping container main").await?;
        test.kubectl(&["patch", "pod", "naps", "-p", r#"{"metadata":{"finalizers":null}}"#])?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rollout_of_20_never_drops_below_its_availability() -> Result<()> {
    test::run(async |test| {
        let server = test.cluster.server()?;
        let (_, api) = server.rsplit_once(':').context("the API server's port")?;
        let api: u16 = api.trim_end_matches('/').parse()?;
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["containers"][0]["readinessProbe"] = json!({
            "tcpSocket": { "port": api, "host": "127.0.0.1" },
            "initialDelaySeconds": 1, "periodSeconds": 1, "timeoutSeconds": 30,
        });
        let mut many = deployment("many", 20, &spec);
        many["spec"]["strategy"] =
            json!({ "rollingUpdate": { "maxSurge": 5, "maxUnavailable": 0 } });
        test.create::<Deployment>(many).await?;
        test.kubectl(&["wait", "--for=condition=Available", "deployment/many", "--timeout=300s"])?;
        let all = |found: &[Deployment]| found.iter().any(|one| counts(one) == (20, 20, 20));
        wait::until(test.api(), wait::named("many"), "20 available replicas", all).await?;
        test.kubectl(&["rollout", "restart", "deployment/many"])?;
        let mut least = i32::MAX;
        let rolled = |found: &[Deployment]| {
            let Some(one) = found.first() else { return false };
            least = least.min(counts(one).2);
            let seen = one.status.as_ref().and_then(|status| status.observed_generation);
            seen >= one.metadata.generation && counts(one) == (20, 20, 20)
        };
        wait::until(test.api::<Deployment>(), wait::named("many"), "the rollout's end", rolled)
            .await?;
        assert_eq!(least, 20, "replicas that were available at one time");
        let old = test.api::<Pod>().list(&ListParams::default().labels("app=many")).await?;
        ensure!(old.items.len() >= 20, "{} pods", old.items.len());
        Ok(())
    })
    .await
}

/// All replicas, those of the newest template, those available.
fn counts(deployment: &Deployment) -> (i32, i32, i32) {
    let status = deployment.status.clone().unwrap_or_default();
    let number = |value: Option<i32>| value.unwrap_or_default();
    (number(status.replicas), number(status.updated_replicas), number(status.available_replicas))
}
