//! Pods outlive their agent.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use nodule_e2e::agent::Options;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use rustix::process::Signal;
use serde_json::json;

use crate::guests::{UNTIL_GO, artifact};

const PODS: usize = 20;

#[tokio::test]
async fn pods_and_their_logs_outlive_a_killed_agent() -> Result<()> {
    test::run_with(&Options { alone: true, ..Options::default() }, async |test| {
        let printing: Vec<_> = (0..PODS).map(|number| format!("prints-{number}")).collect();
        for name in &printing {
            let mut pod = test.spec(&["lines", "0", "10"]);
            pod["restartPolicy"] = json!("Always");
            labelled(test, name, pod).await?;
        }
        let go = ends_when_told(test).await?;
        test.pod("deleted", test.spec(&["lines", "0", "1000"])).await?;
        test.pods_until("", "every pod to run", |pods| {
            pods.iter().filter(|pod| status::running(pod).is_some()).count() == PODS + 2
        })
        .await?;
        let before =
            ids(&test.pods_until("app=prints", "the pods", |pods| pods.len() == PODS).await?);

        test.agent.kill()?;
        let processes = test.agent.sandboxes();
        assert_eq!(processes.len(), PODS + 2, "they run on");
        fs::write(go, "")?;
        test.kubectl(&["delete", "pod", "deleted", "--wait=false"])?;
        test.agent.start_again()?;

        let ended = test
            .pod_until("ends", "to have ended", |pod| status::terminated(pod).is_some())
            .await?;
        assert_eq!(status::terminated(&ended).map(|ended| ended.exit_code), Some(7));
        wait::until(
            test.api::<Pod>(),
            wait::named("deleted"),
            "the deleted pod to go",
            <[_]>::is_empty,
        )
        .await?;
        let after = test.pods_until("app=prints", "the pods to be ready", |pods| {
            pods.iter().filter(|pod| status::is_ready(pod)).count() == PODS
        });
        assert_eq!(ids(&after.await?), before, "none was started again");
        for name in &printing {
            every_number_once(&test.kubectl(&["logs", name])?).with_context(|| name.clone())?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_that_crashes_waits_on_under_the_next_agent() -> Result<()> {
    test::run(async |test| {
        let made = test.pod("crashes", test.spec(&["exit", "3"])).await?;
        let namespace = made.namespace().context("a namespace")?;
        let pod = format!("crashes_{namespace}({})", made.uid().context("a UID")?);
        let waits = |shown: &Pod, wait: &str| {
            let main = status::container(shown, "main");
            let waiting = main.and_then(|main| main.state.as_ref()?.waiting.as_ref());
            let said = format!("back-off {wait} restarting failed container=main pod={pod}");
            waiting.is_some_and(|waiting| {
                waiting.reason.as_deref() == Some("CrashLoopBackOff")
                    && waiting.message.as_deref() == Some(said.as_str())
            })
        };
        let first =
            test.pod_until("crashes", "its first wait", |shown| waits(shown, "10s")).await?;
        assert_eq!(status::restarts(&first), 1, "the first restart is at once");
        let message = format!("Back-off restarting failed container main in pod {pod}");
        let told = |events: &[Event]| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some("BackOff")
                    && event.message.as_deref() == Some(message.as_str())
            })
        };
        wait::until(test.api::<Event>(), wait::all(), "the Event of the wait", told).await?;
        test.agent.kill()?;
        test.agent.start_again()?;
        let second =
            test.pod_until("crashes", "its second wait", |shown| waits(shown, "20s")).await?;
        assert_eq!(status::restarts(&second), 2, "the next agent waits, and counts on");
        assert_eq!(since(&second), since(&first));
        Ok(())
    })
    .await
}

/// When a pod began, and since when it is as it is in what a crash changes nothing of.
fn since(pod: &Pod) -> Vec<Option<Time>> {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.into_iter().flatten();
    let lasting = ["PodScheduled", "Initialized", "PodReadyToStartContainers"];
    let lasting = conditions.filter(|condition| lasting.contains(&condition.type_.as_str()));
    let times = lasting.map(|condition| condition.last_transition_time);
    std::iter::once(status.start_time).chain(times).collect()
}

#[tokio::test]
async fn pods_outlive_a_killed_zygote_and_their_ends_are_known() -> Result<()> {
    test::run(async |test| {
        let go = ends_when_told(test).await?;
        let mut stays = test.spec(&["lines", "0", "100"]);
        stays["restartPolicy"] = json!("Never");
        test.pod("stays", stays).await?;
        for name in ["stays", "ends"] {
            test.pod_until(name, "to run", |pod| status::running(pod).is_some()).await?;
        }
        let pods = test.agent.sandboxes();
        let zygote = test.agent.zygote().context("a zygote")?;
        ensure!(zygote.end(Signal::KILL, wait::PATIENCE)?, "the zygote still runs");
        let next =
            wait::found("another zygote", || test.agent.zygote().filter(|next| *next != zygote))
                .await?;
        assert_eq!(test.agent.sandboxes(), pods, "they run on");

        fs::write(go, "")?;
        let ended = test
            .pod_until("ends", "to have ended", |pod| status::terminated(pod).is_some())
            .await?;
        assert_eq!(status::terminated(&ended).map(|ended| ended.exit_code), Some(7));
        let killed = pods.iter().filter(|process| process.runs()).collect::<Vec<_>>();
        assert_eq!(killed.len(), 1);
        killed[0].end(Signal::KILL, wait::PATIENCE)?;
        let stays = test
            .pod_until("stays", "to have ended", |pod| status::terminated(pod).is_some())
            .await?;
        let end = status::terminated(&stays).context("an end")?;
        assert_eq!(
            (end.exit_code, end.message.as_deref()),
            (137, Some("killed by signal 9")),
            "the agent is who waits for a process whose zygote is gone"
        );
        let mut more = test.spec(&["exit", "4"]);
        more["restartPolicy"] = json!("Never");
        test.pod("more", more).await?;
        let more =
            test.pod_until("more", "to end", |pod| status::terminated(pod).is_some()).await?;
        assert_eq!(status::terminated(&more).map(|end| end.exit_code), Some(4));
        ensure!(next.runs(), "the new zygote has ended");
        Ok(())
    })
    .await
}

async fn labelled(test: &Test<'_>, name: &str, spec: serde_json::Value) -> Result<Pod> {
    test.create(
        json!({ "metadata": { "name": name, "labels": { "app": "prints" } }, "spec": spec }),
    )
    .await
}

/// A pod that ends once the file is there whose path this gives back.
async fn ends_when_told(test: &Test<'_>) -> Result<std::path::PathBuf> {
    let image = test.cluster.registry().push("tests/until-go:1", &artifact(UNTIL_GO)?).await?;
    let folder = test.agent.file("told");
    fs::create_dir_all(&folder)?;
    let mut spec = test.spec(&[]);
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["image"] = json!(image);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "told", "mountPath": "/told" }]);
    spec["volumes"] =
        json!([{ "name": "told", "hostPath": { "path": folder, "type": "Directory" } }]);
    test.pod("ends", spec).await?;
    Ok(folder.join("go"))
}

/// Which process each pod is, and how often it was started again.
fn ids(pods: &[Pod]) -> BTreeMap<String, (Option<String>, i32)> {
    let id =
        |pod: &Pod| status::container(pod, "main").and_then(|status| status.container_id.clone());
    pods.iter().map(|pod| (pod.name_any(), (id(pod), status::restarts(pod)))).collect()
}

fn every_number_once(log: &str) -> Result<()> {
    ensure!(!log.is_empty(), "no line");
    for (index, line) in log.lines().enumerate() {
        ensure!(line == format!("line {}", index + 1), "line {} of the log is {line:?}", index + 1);
    }
    Ok(())
}
