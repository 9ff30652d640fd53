//! What is counted of a node's own work, as those see it who may.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;

/// What the node's own port answers to a service account of the test's namespace, by what the API server says of its token.
fn asked_of_node(test: &Test<'_>, account: &str, path: &str) -> Result<String> {
    let endpoint = "jsonpath={.status.daemonEndpoints.kubeletEndpoint.Port}";
    let port = test.kubectl(&["get", "node", test.agent.name(), "-o", endpoint])?;
    let token = test.kubectl(&["create", "token", account])?;
    let server = format!("--server=https://127.0.0.1:{port}");
    let token = format!("--token={}", token.trim());
    let authority = format!("--certificate-authority={}", test.agent.file("ca.crt").display());
    test.kubectl(&["--kubeconfig=/dev/null", &server, &token, &authority, "get", "--raw", path])
}

/// What the node shows at a path to a service account that may get its metrics. One that may not is refused.
pub(crate) async fn shown(test: &Test<'_>, path: &str) -> Result<String> {
    let refused = asked_of_node(test, "default", path).expect_err("nothing is allowed");
    ensure!(format!("{refused:#}").contains("Forbidden"), "{refused:#}");
    test.kubectl(&["create", "serviceaccount", "watcher"])?;
    // Cluster roles are everybody's: these have the namespace's name, and are its own.
    let name = test.namespace.clone();
    let account = format!("--serviceaccount={name}:watcher");
    test.kubectl(&["create", "clusterrole", &name, "--verb=get", "--resource=nodes/metrics"])?;
    let role = format!("--clusterrole={name}");
    test.kubectl(&["create", "clusterrolebinding", &name, &role, &account])?;
    // The API server takes a moment to go by a role, and the node remembers its no for a while.
    let shown = wait::found("the metrics", || asked_of_node(test, "watcher", path).ok()).await;
    test.kubectl(&["delete", "clusterrole,clusterrolebinding", &name])?;
    shown
}

#[tokio::test]
async fn pulls_and_volumes_of_images_are_counted_for_whoever_may_get_the_nodes_metrics()
-> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&["lines", "0", "1000"]);
        let main = &mut spec["containers"][0];
        let image = main["image"].clone();
        main["imagePullPolicy"] = json!("Always");
        main["volumeMounts"] = json!([{ "name": "model", "mountPath": "/model" }]);
        spec["volumes"] = json!([{ "name": "model", "image": { "reference": image } }]);
        test.pod("counted", spec).await?;
        let runs = |pod: &Pod| status::phase(pod) == "Running";
        test.pod_until("counted", "to run", runs).await?;

        let shown = shown(test, "/metrics").await?;

        let value = |series: &str| {
            let mut lines = shown.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(name, _)| *name == series).and_then(|(_, value)| value.parse::<f64>().ok())
        };
        for series in [
            r#"kubelet_image_pull_duration_seconds_count{image_size_in_bytes="0-10MB"}"#,
            r#"kubelet_image_pull_duration_seconds_bucket{image_size_in_bytes="0-10MB",le="3600"}"#,
            r#"kubelet_image_manager_ensure_image_requests_total{present_locally="unknown",pull_policy="always",pull_required="true"}"#,
            r#"kubelet_runtime_operations_total{operation_type="pull_image"}"#,
            r#"kubelet_runtime_operations_total{operation_type="list_images"}"#,
            r#"kubelet_runtime_operations_duration_seconds_count{operation_type="pull_image"}"#,
            "kubelet_imagemanager_ondisk_pulledrecords",
            "kubelet_image_volume_requested_total",
            "kubelet_image_volume_mounted_succeed_total",
            "nodule_image_downloaded_bytes_total",
            r#"nodule_compiled_code_requests_total{result="miss"}"#,
        ] {
            let value = value(series);
            ensure!(value.is_some_and(|value| value >= 1.0), "{series} {value:?}: {shown}");
        }
        let types = "# TYPE kubelet_image_pull_duration_seconds histogram";
        ensure!(shown.contains(types), "{shown}");
        let name = image.as_str().unwrap_or_default();
        ensure!(!shown.contains(name), "a name of an image is a label: {shown}");
        Ok(())
    })
    .await
}
