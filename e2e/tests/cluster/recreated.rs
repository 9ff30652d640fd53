//! A pod that is made again under its name while the one before has not ended here.

use std::cell::RefCell;
use std::pin::pin;

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use kube::runtime::{WatchStreamExt, watcher};
use nodule_e2e::process::Process;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::{Value, json};

const NAME: &str = "same";

#[tokio::test]
async fn a_pod_made_again_while_the_one_before_ends_shares_nothing_with_it() -> Result<()> {
    test::run(async |test| {
        let old = test.pod(NAME, spec(test, "old")).await?;
        let process = process(test).await?;
        let told = RefCell::default();
        let new = again(test, spec(test, "new")).await?;
        assert_ne!(old.metadata.uid, new.metadata.uid);
        let both_settle = async {
            let ready = test.pod_until(NAME, "to be Ready", status::is_ready).await?;
            let folder = test.agent.file("root/pods").join(old.metadata.uid.context("a UID")?);
            wait::found("nothing of the old pod", || (!folder.exists()).then_some(())).await?;
            Ok(ready)
        };
        let ready = beside(test, &told, Box::pin(both_settle)).await?;
        assert!(!process.runs(), "what ran before");
        assert_eq!(test.kubectl(&["logs", NAME, "-c", "first"])?, "", "its volume was new");
        let now = test.pod_until(NAME, "to be Ready", status::is_ready).await?;
        assert_eq!(now.status, ready.status, "what came of the old one is nothing to the new one");
        only_of(&now, &told.into_inner())
    })
    .await
}

#[tokio::test]
async fn a_pod_made_again_waits_for_the_port_of_the_one_before() -> Result<()> {
    test::run(async |test| {
        let mut spec = spec(test, "it");
        spec["containers"][0]["ports"] = json!([{ "containerPort": 8080, "hostPort": 8080 }]);
        test.pod(NAME, spec.clone()).await?;
        for agent in ["there", "away"] {
            let process = process(test).await?;
            if agent == "away" {
                test.agent.stop()?;
            }
            let told = RefCell::default();
            let new = again(test, spec.clone()).await?;
            if agent == "away" {
                test.agent.start_again()?;
            }
            let ready = test.pod_until(NAME, "to be Ready", status::is_ready);
            let ready = beside(test, &told, ready).await.context(agent)?;
            assert!(!process.runs(), "the one before had the port");
            assert_eq!(ready.metadata.uid, new.metadata.uid);
            only_of(&ready, &told.into_inner()).context(agent)?;
        }
        Ok(())
    })
    .await
}

/// A pod that shows what it finds in a volume, leaves a file there and runs on.
fn spec(test: &Test<'_>, file: &str) -> Value {
    let container = |name: &str, args: &[&str]| {
        json!({
            "name": name, "image": test.image("examples/probe:p1"), "args": args,
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        })
    };
    let mut spec = test.spec(&[]);
    spec["nodeName"] = json!(test.agent.name());
    spec["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
    spec["initContainers"] = json!([
        container("first", &["ls", "/data"]),
        container("second", &["write", &format!("/data/{file}"), ""]),
    ]);
    spec["containers"] = json!([container("main", &["lines", "0", "1000"])]);
    spec
}

/// The process of the one pod, once it is Ready.
async fn process(test: &Test<'_>) -> Result<Process> {
    test.pod_until(NAME, "to be Ready", status::is_ready).await?;
    test.agent.sandboxes().pop().context("its process")
}

/// Has the pod forgotten by force, and makes another one at once. The one before still has the two seconds that are the least.
async fn again(test: &Test<'_>, spec: Value) -> Result<Pod> {
    let params = DeleteParams::default().grace_period(0);
    test.api::<Pod>().delete(NAME, &params).await?;
    test.pod(NAME, spec).await
}

/// Does this, and notes all that the pod of the name shows meanwhile.
async fn beside<T>(
    test: &Test<'_>,
    told: &RefCell<Vec<Pod>>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = Box::pin(work) => done,
        broken = Box::pin(note(test.api(), told)) => broken?,
    }
}

async fn note<T>(pods: Api<Pod>, told: &RefCell<Vec<Pod>>) -> Result<Result<T>> {
    let mut pods = pin!(watcher(pods, wait::named(NAME)).applied_objects().default_backoff());
    while let Some(pod) = pods.try_next().await? {
        told.borrow_mut().push(pod);
    }
    bail!("the watch ended")
}

/// All that was told of this pod was of its own container, which never ended.
fn only_of(pod: &Pod, told: &[Pod]) -> Result<()> {
    let id = |pod: &Pod| status::container(pod, "main").and_then(|one| one.container_id.clone());
    let own = id(pod).context("its container's id")?;
    ensure!(!told.is_empty(), "something was told");
    for one in told {
        ensure!(one.metadata.uid == pod.metadata.uid, "another pod: {one:?}");
        ensure!(id(one).is_none_or(|id| id == own), "another container: {one:?}");
        ensure!(status::terminated(one).is_none(), "an end: {one:?}");
        ensure!(["", "Pending", "Running"].contains(&status::phase(one)), "a phase: {one:?}");
    }
    Ok(())
}
