//! Single pods: what they print, how they end, what they find.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::{status, test, wait};
use serde_json::json;

#[tokio::test]
async fn a_pod_runs_and_its_log_is_what_it_printed() -> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&["lines", "3", "10"]);
        spec["restartPolicy"] = json!("Never");
        test.pod("hello", spec).await?;
        let pod =
            test.pod_until("hello", "to end", |pod| status::terminated(pod).is_some()).await?;
        assert_eq!(test.kubectl(&["logs", "hello"])?, "line 1\nline 2\nline 3\n");
        assert_eq!(test.kubectl(&["logs", "-f", "--tail=1", "hello"])?, "line 3\n");
        let ended = status::terminated(&pod).context("ended")?;
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
        let container = status::container(&pod, "main").context("a container")?;
        assert!(container.image_id.contains("@sha256:"), "{}", container.image_id);
        let id = container.container_id.as_deref().unwrap_or_default();
        assert!(id.starts_with("nodule://"), "{id}");
        test.pod_until("hello", "to have succeeded", |pod| status::phase(pod) == "Succeeded")
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_module_components_and_a_krustlet_artifact_run_alike() -> Result<()> {
    test::run(async |test| {
        for tag in ["p1", "p2", "p3", "krustlet"] {
            let mut spec = test.spec(&["show"]);
            spec["restartPolicy"] = json!("Never");
            spec["containers"][0]["image"] = json!(test.image(&format!("examples/probe:{tag}")));
            spec["containers"][0]["args"] = json!(["show"]);
            spec["containers"][0]["env"] =
                json!([{ "name": "WHO", "value": "world" }, { "name": "GREETING", "value": "hello, $(WHO)" }]);
            test.pod(tag, spec).await?;
        }
        for tag in ["p1", "p2", "p3", "krustlet"] {
            test.pod_until(tag, "to have succeeded", |pod| status::phase(pod) == "Succeeded").await?;
            let log = test.kubectl(&["logs", tag])?;
            assert!(log.lines().any(|line| line == "arg show"), "{tag}: {log}");
            assert!(log.lines().any(|line| line == "env GREETING=hello, world"), "{tag}: {log}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn exit_codes_and_traps_are_told_apart() -> Result<()> {
    test::run(async |test| {
        let cases = [("three", vec!["exit", "3"], 3), ("trap", vec!["trap", "unreachable"], 134)];
        for (name, arguments, _) in &cases {
            let mut spec = test.spec(arguments);
            spec["restartPolicy"] = json!("Never");
            test.pod(name, spec).await?;
        }
        for (name, _, code) in &cases {
            let pod = test
                .pod_until(name, "to have failed", |pod| status::phase(pod) == "Failed")
                .await?;
            let ended = status::terminated(&pod).context("ended")?;
            assert_eq!(
                (ended.exit_code, ended.reason.as_deref()),
                (*code, Some("Error")),
                "{name}"
            );
            let message = ended.message.as_deref().unwrap_or_default();
            assert_eq!(message.contains("unreachable"), *name == "trap", "{name}: {message}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn containers_share_an_empty_dir_and_one_may_not_write_to_it() -> Result<()> {
    test::run(async |test| {
        let container = |name: &str, arguments: &[&str], read_only: bool| {
            let mount = json!({ "name": "shared", "mountPath": "/data", "readOnly": read_only });
            let image = test.image("examples/probe:p1");
            json!({ "name": name, "image": image, "args": arguments, "volumeMounts": [mount] })
        };
        let mut spec = test.spec(&[]);
        spec["restartPolicy"] = json!("Never");
        spec["volumes"] = json!([{ "name": "shared", "emptyDir": {} }]);
        spec["initContainers"] =
            json!([container("writer", &["write", "/data/note", "from the writer"], false)]);
        spec["containers"] = json!([
            container("reader", &["read", "/data/note"], true),
            container("vandal", &["write", "/data/note", "overwritten"], true),
        ]);
        test.pod("shares", spec).await?;
        let pod = test
            .pod_until("shares", "to have failed", |pod| status::phase(pod) == "Failed")
            .await?;
        let code = |name| {
            let state = status::container(&pod, name)?.state.as_ref()?;
            Some(state.terminated.as_ref()?.exit_code)
        };
        assert_eq!((code("reader"), code("vandal")), (Some(0), Some(1)));
        assert_eq!(
            test.kubectl(&["logs", "shares", "-c", "reader"])?.trim_end(),
            "from the writer"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_waits_for_ready_and_deletes() -> Result<()> {
    test::run(async |test| {
        test.pod("stays", test.spec(&["lines", "0", "100"])).await?;
        test.kubectl(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=180s"])?;
        let processes = test.agent.sandboxes();
        assert_eq!(processes.len(), 1);
        test.kubectl(&["delete", "pod", "stays", "--timeout=180s"])?;
        assert_eq!(test.agent.sandboxes(), [], "its process goes before the object does");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_forced_deletion_ends_the_process_too() -> Result<()> {
    test::run(async |test| {
        test.pod("stays", test.spec(&["spin"])).await?;
        test.pod_until("stays", "to run", |pod| status::running(pod).is_some()).await?;
        let processes = test.agent.sandboxes();
        assert_eq!(processes.len(), 1);
        test.kubectl(&["delete", "pod", "stays", "--force", "--grace-period=0", "--timeout=180s"])?;
        for process in processes {
            assert!(process.wait(wait::PATIENCE)?, "{process:?} still runs");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_debug_adds_a_container_to_a_running_pod() -> Result<()> {
    test::run(async |test| {
        test.pod("stays", test.spec(&["lines", "0", "100"])).await?;
        let before = test.pod_until("stays", "to be ready", status::is_ready).await?;
        let image = format!("--image={}", test.image("examples/probe:p1"));
        let added = ["debug", "stays", &image, "--container=looks", "--arguments-only", "--"];
        test.kubectl(&[&added[..], &["lines", "2", "1"]].concat())?;
        let ended = |pod: &Pod| {
            let status = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?.first()?;
            Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
        };
        let after =
            test.pod_until("stays", "to have had a guest", |pod| ended(pod) == Some(0)).await?;
        assert_eq!(test.kubectl(&["logs", "stays", "-c", "looks"])?, "line 1\nline 2\n");
        let id = |pod| status::container(pod, "main").and_then(|main| main.container_id.clone());
        assert_eq!((id(&after), status::is_ready(&after)), (id(&before), true));
        Ok(())
    })
    .await
}
