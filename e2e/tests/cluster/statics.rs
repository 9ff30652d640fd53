//! Static pods: the node's own, shown by mirrors that the API server lets it make.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::{Value, json};

pub(crate) fn write(test: &Test<'_>, file: &str, manifest: &Value) -> Result<()> {
    let folder = test.agent.file("manifests");
    let whole = folder.join(format!(".{file}"));
    fs::write(&whole, manifest.to_string())?;
    Ok(fs::rename(whole, folder.join(file))?)
}

pub(crate) fn manifest(test: &Test<'_>, labels: &Value) -> Value {
    let mut spec = test.spec(&["lines", "0", "1000"]);
    // A static pod is not scheduled.
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("nodeSelector");
        spec.remove("tolerations");
    }
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": test.namespace, "labels": labels}, "spec": spec})
}

fn id(pod: &Pod) -> Option<String> {
    status::container(pod, "main")?.container_id.clone()
}

#[tokio::test]
async fn a_static_pod_is_mirrored_and_ends_by_its_manifest_alone() -> Result<()> {
    test::run(async |test| {
        let name = format!("web-{}", test.agent.name());
        write(test, "web.yaml", &manifest(test, &json!({"version": "1"})))?;
        let running = |pod: &Pod| status::is_ready(pod) && status::running(pod).is_some();
        let first = test.pod_until(&name, "to be mirrored as running", running).await?;
        let log = test.kubectl(&["logs", &name])?;
        ensure!(log.starts_with("line 1\n"), "its log is read by the mirror: {log:?}");

        test.kubectl(&["delete", "pod", &name])?;
        let other = |pod: &Pod| running(pod) && pod.metadata.uid != first.metadata.uid;
        let second = test.pod_until(&name, "to be mirrored anew", other).await?;
        ensure!(id(&first) == id(&second), "the pod itself has run on");

        write(test, "web.yaml", &manifest(test, &json!({"version": "2"})))?;
        let changed = |pod: &Pod| running(pod) && id(pod) != id(&first);
        let third = test.pod_until(&name, "to be the changed one", changed).await?;
        ensure!(
            third.metadata.labels.clone().context("labels")?["version"] == "2",
            "of the new manifest"
        );

        write(
            test,
            "web.yaml",
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}),
        )?;
        let broken = |events: &[Event]| {
            events.iter().any(|event| event.reason.as_deref() == Some("FailedValidation"))
        };
        let which = wait::all().fields(&format!("involvedObject.name={}", test.agent.name()));
        let events = kube::Api::namespaced(test.client.clone(), "default");
        wait::until(events, which, "an Event of the node", broken).await?;
        let still = test.pod_until(&name, "to run on", running).await?;
        ensure!(id(&still) == id(&third), "a broken manifest ends nothing");

        fs::remove_file(test.agent.file("manifests").join("web.yaml"))?;
        wait::until(test.api::<Pod>(), wait::named(&name), "the mirror to go", <[_]>::is_empty)
            .await?;
        ensure!(test.agent.sandboxes().is_empty(), "nothing of it runs");
        Ok(())
    })
    .await
}
