//! What of a pod may be changed while it runs: resources and images.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::agent::Options;
use nodule_e2e::status;
use nodule_e2e::test::{self, Test};
use serde_json::json;

/// As a user does it.
fn resize(test: &Test<'_>, name: &str, resources: &serde_json::Value) -> Result<()> {
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": resources}]}});
    let patch = patch.to_string();
    test.kubectl(&["patch", "pod", name, "--subresource", "resize", "--patch", &patch])?;
    Ok(())
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let all = pod.status.as_ref()?.conditions.as_ref()?;
    let found = all.iter().find(|condition| condition.type_ == kind)?;
    Some((found.reason.as_deref().unwrap_or(""), found.message.as_deref().unwrap_or("")))
}

fn limit(pod: &Pod) -> Option<&str> {
    let resources = status::container(pod, "main")?.resources.as_ref()?;
    Some(resources.limits.as_ref()?.get("memory")?.0.as_str())
}

#[tokio::test]
async fn a_pods_resources_are_changed_while_it_runs() -> Result<()> {
    // The API server takes it for nodes of this system alone.
    let options =
        Options { configuration: "labels: { os: linux }\n".to_owned(), ..Options::default() };
    test::run_with(&options, async |test| {
        let memory =
            |limit: &str| json!({"requests": {"memory": "16Mi"}, "limits": {"memory": limit}});
        let mut spec = test.spec(&["lines", "0", "600000"]);
        *spec.pointer_mut("/containers/0").context("a container")? = {
            let mut container = spec["containers"][0].clone();
            container["resources"] = memory("32Mi");
            container
        };
        test.pod("web", spec).await?;
        let before = test.pod_until("web", "to run", |pod| limit(pod) == Some("32Mi")).await?;

        resize(test, "web", &memory("64Mi"))?;
        let resized = |pod: &Pod| {
            limit(pod) == Some("64Mi") && condition(pod, "PodResizeInProgress").is_none()
        };
        let after = test.pod_until("web", "to have 64Mi", resized).await?;
        ensure!(status::restarts(&after) == 0, "it was started again");
        ensure!(
            status::container(&after, "main").map(|it| &it.container_id)
                == status::container(&before, "main").map(|it| &it.container_id)
        );
        let described = test.kubectl(&["describe", "pod", "web"])?;
        for told in ["ResizeStarted", "ResizeCompleted"] {
            ensure!(described.contains(told), "no {told}: {described}");
        }

        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            more_cpus_are_never_had(test).await?;
        }
        Ok(())
    })
    .await
}

/// Where nothing could keep the limit.
async fn more_cpus_are_never_had(test: &Test<'_>) -> Result<()> {
    let limits = json!({"memory": "64Mi", "cpu": "500m"});
    resize(test, "web", &json!({"requests": {"memory": "16Mi", "cpu": "100m"}, "limits": limits}))?;
    let never = |pod: &Pod| {
        condition(pod, "PodResizePending").is_some_and(|(reason, message)| {
            reason == "Infeasible" && message.contains("this node has no cgroups")
        })
    };
    test.pod_until("web", "to be told that this can never be", never).await?;
    Ok(())
}

#[tokio::test]
async fn a_container_whose_image_is_changed_runs_anew() -> Result<()> {
    test::run(async |test| {
        test.pod("web", test.spec(&["lines", "0", "600000"])).await?;
        test.pod_until("web", "to run", |pod| status::running(pod).is_some()).await?;
        let image = test.image("examples/probe:p2");
        test.kubectl(&["set", "image", "pod/web", &format!("main={image}")])?;
        let changed = |pod: &Pod| {
            status::running(pod).is_some()
                && status::container(pod, "main").is_some_and(|it| it.image == image)
        };
        let after = test.pod_until("web", "to run the other image", changed).await?;
        ensure!(status::restarts(&after) == 1, "{} restarts", status::restarts(&after));
        let described = test.kubectl(&["describe", "pod", "web"])?;
        ensure!(
            described.contains("Container main definition changed, will be restarted"),
            "{described}"
        );
        Ok(())
    })
    .await
}
