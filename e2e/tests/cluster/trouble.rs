//! What is said of pods where something is wrong with the node, or they do not belong on it.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use k8s_openapi::api::core::v1::Event;
use nodule_e2e::agent::Options;
use nodule_e2e::cluster::Cluster;
use nodule_e2e::{paths, test, wait};
use serde_json::json;

use crate::said::{all_said, on_node, said};

#[tokio::test]
async fn a_pod_that_does_not_tolerate_that_the_node_executes_none_is_not_taken_on() -> Result<()> {
    let cluster = Cluster::own().await?;
    test::run_on(&cluster, &Options::default(), async |test| {
        // Which would delete the pod, too.
        cluster.stop("kube-controller-manager")?;
        let mut spec = on_node(test);
        spec["tolerations"] = json!([{ "operator": "Exists", "effect": "NoSchedule" }]);
        let words = &[
            "phase=Failed",
            "reason=TaintToleration",
            "message=Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        ];
        // Other effects are the scheduler's.
        test.kubectl(&["taint", "node", test.agent.name(), "example.com/full=yes:NoSchedule"])?;
        all_said(test, vec![("repelled", spec, words)]).await?;
        all_said(test, vec![("here", on_node(test), &["Ready=True"])]).await
    })
    .await
}

#[tokio::test]
async fn a_container_whose_process_cannot_be_made_waits_for_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let link = folder.path().join("nodule-sandbox");
    symlink(paths::program("nodule-sandbox")?, &link)?;
    let configuration = format!("sandboxStart: exec\nsandboxPath: {}\n", link.display());
    test::run_with(&Options { configuration, ..Options::default() }, async |test| {
        fs::remove_file(&link)?;
        let cases = vec![("web", on_node(test), &["main waiting RunContainerError"][..])];
        all_said(test, cases).await?;
        symlink(paths::program("nodule-sandbox")?, &link)?;
        said(test, &[("web", &["Ready=True"])]).await
    })
    .await
}

#[tokio::test]
async fn an_image_of_which_it_cannot_be_read_whose_it_is_is_not_used() -> Result<()> {
    test::run(async |test| {
        all_said(test, vec![("first", on_node(test), &["Ready=True"])]).await?;
        let access = test.agent.file("root/images/access");
        for proof in fs::read_dir(&access)? {
            let proof = proof?.path();
            fs::remove_file(&proof)?;
            fs::create_dir(&proof)?;
        }
        let mut second = on_node(test);
        second["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
        all_said(test, vec![("second", second, &["main waiting ImageInspectError"])]).await?;
        let inspected = |events: &[Event]| {
            events.iter().any(|event| event.reason.as_deref() == Some("InspectFailed"))
        };
        wait::until(test.api(), wait::all(), "its Event", inspected).await.map(drop)
    })
    .await
}
