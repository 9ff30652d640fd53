//! What controllers make: they must not notice that this is not a kubelet.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use nodule_e2e::{status, test, wait};
use serde_json::{Value, json};

use crate::guests::{THIRD_TIME, artifact};

fn template(spec: &Value) -> Value {
    json!({ "metadata": { "labels": { "app": "it" } }, "spec": spec })
}

#[tokio::test]
async fn a_deployment_of_20_becomes_available_and_goes_away() -> Result<()> {
    test::run(async |test| {
        let spec = json!({
            "replicas": 20,
            "selector": { "matchLabels": { "app": "it" } },
            "template": template(&test.spec(&["lines", "0", "1000"])),
        });
        test.create::<Deployment>(json!({ "metadata": { "name": "many" }, "spec": spec })).await?;
        test.kubectl(&["wait", "--for=condition=Available", "deployment/many", "--timeout=300s"])?;
        let available = |found: &[Deployment]| {
            found.iter().any(|one| {
                one.status.as_ref().and_then(|status| status.available_replicas) == Some(20)
            })
        };
        wait::until(test.api(), wait::named("many"), "20 available replicas", available).await?;
        assert_eq!(test.agent.sandboxes().len(), 20);
        let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
        test.api::<Deployment>().patch("many", &PatchParams::default(), &none).await?;
        test.pods_until("app=it", "no pod", <[_]>::is_empty).await?;
        assert_eq!(test.agent.sandboxes(), []);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_that_fails_twice_completes_on_the_third_try() -> Result<()> {
    test::run(async |test| {
        let image =
            test.cluster.registry().push("tests/third-time:1", &artifact(THIRD_TIME)?).await?;
        let mut pod = test.spec(&[]);
        pod["restartPolicy"] = json!("OnFailure");
        pod["containers"][0]["image"] = json!(image);
        pod["containers"][0]["volumeMounts"] =
            json!([{ "name": "memory", "mountPath": "/memory" }]);
        pod["volumes"] = json!([{ "name": "memory", "emptyDir": {} }]);
        let spec = json!({ "backoffLimit": 6, "template": template(&pod) });
        test.create::<Job>(json!({ "metadata": { "name": "tries" }, "spec": spec })).await?;
        test.kubectl(&["wait", "--for=condition=Complete", "job/tries", "--timeout=180s"])?;
        let pods = test.pods_until("app=it", "a pod that succeeded", |pods| {
            pods.iter().any(|pod| status::phase(pod) == "Succeeded")
        });
        let pods = pods.await?;
        let pod = pods.first().context("a pod")?;
        assert_eq!((pods.len(), status::restarts(pod)), (1, 2));
        let last = status::container(pod, "main").and_then(|status| status.last_state.as_ref());
        let last = last.and_then(|state| state.terminated.as_ref()).context("the try before")?;
        assert_eq!(last.exit_code, 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cron_jobs_pod_runs() -> Result<()> {
    test::run(async |test| {
        let mut pod = test.spec(&["exit", "0"]);
        pod["restartPolicy"] = json!("Never");
        let job = json!({ "spec": { "template": template(&pod) } });
        let spec = json!({ "schedule": "* * * * *", "jobTemplate": job });
        test.create::<CronJob>(json!({ "metadata": { "name": "clock" }, "spec": spec })).await?;
        test.pods_until("app=it", "a pod that succeeded", |pods| {
            pods.iter().any(|pod| status::phase(pod) == "Succeeded")
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stateful_sets_pods_run_one_after_the_other() -> Result<()> {
    test::run(async |test| {
        let spec = json!({
            "replicas": 3,
            "serviceName": "it",
            "selector": { "matchLabels": { "app": "it" } },
            "template": template(&test.spec(&["lines", "0", "1000"])),
        });
        test.create::<StatefulSet>(json!({ "metadata": { "name": "row" }, "spec": spec })).await?;
        let pods = test.pods_until("app=it", "three ready pods", |pods| {
            pods.iter().filter(|pod| status::is_ready(pod)).count() == 3
        });
        let mut started: Vec<_> = pods.await?;
        started.sort_by_key(|pod| status::running(pod).and_then(|state| state.started_at.clone()));
        let names: Vec<_> = started.iter().map(ResourceExt::name_any).collect();
        let mut in_order = names.clone();
        in_order.sort();
        assert_eq!(in_order, ["row-0", "row-1", "row-2"]);
        Ok(())
    })
    .await
}
