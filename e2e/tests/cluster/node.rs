//! The Node object and its Lease.

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use nodule_e2e::{status, test, wait};
use serde_json::json;

use crate::said::{all_said, on_node};

#[tokio::test]
async fn a_new_node_is_ready_and_says_what_it_is() -> Result<()> {
    test::run(async |test| {
        let node: Node = Api::all(test.client.clone()).get(test.agent.name()).await?;
        for (label, value) in [
            ("kubernetes.io/arch", "wasm32-wasi"),
            ("kubernetes.io/os", "wasi"),
            ("kubernetes.io/hostname", test.agent.name()),
            ("nodule.dev/host-arch", std::env::consts::ARCH),
        ] {
            assert_eq!(node.labels().get(label).map(String::as_str), Some(value), "label {label}");
        }
        let taints = node.spec.clone().and_then(|spec| spec.taints).unwrap_or_default();
        let ours: Vec<_> =
            taints.iter().filter(|taint| taint.key == "kubernetes.io/arch").collect();
        assert!(ours.iter().all(|taint| taint.value.as_deref() == Some("wasm32-wasi")), "{ours:?}");
        let mut effects: Vec<_> = ours.iter().map(|taint| taint.effect.as_str()).collect();
        effects.sort_unstable();
        assert_eq!(effects, ["NoExecute", "NoSchedule"]);
        for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
            assert_eq!(status::node_condition(&node, pressure), "False", "{pressure}");
        }
        let found = node.status.context("a status")?;
        let info = found.node_info.context("nodeInfo")?;
        assert_eq!(
            (info.architecture.as_str(), info.operating_system.as_str()),
            ("wasm32-wasi", "wasi")
        );
        assert!(
            info.container_runtime_version.starts_with("nodule://"),
            "{}",
            info.container_runtime_version
        );
        let capacity = found.capacity.context("capacity")?;
        assert_eq!(capacity.get("pods").map(|pods| pods.0.as_str()), Some("110"));
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            assert!(capacity.contains_key(resource), "{resource}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_lease_is_renewed() -> Result<()> {
    test::run(async |test| {
        let leases: Api<Lease> = Api::namespaced(test.client.clone(), "kube-node-lease");
        let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let which = || wait::named(test.agent.name());
        let first =
            wait::until(leases.clone(), which(), "a lease", |found| !found.is_empty()).await?;
        let first = first.first().and_then(renewed).context("a renew time")?;
        let later = |found: &[Lease]| found.iter().filter_map(renewed).any(|time| time.0 > first.0);
        wait::until(leases, which(), "the lease to be renewed", later).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_does_and_leaves_the_pods_running() -> Result<()> {
    test::run(async |test| {
        test.pod("stays", test.spec(&["lines", "0", "100"])).await?;
        test.pod_until("stays", "to run", |pod| status::running(pod).is_some()).await?;
        let before = test.agent.sandboxes();
        assert_eq!(before.len(), 1, "one container, one process");
        let status = test.agent.stop()?;
        assert!(status.success(), "{status}");
        assert_eq!(test.agent.sandboxes(), before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_keeps_to_the_groups_that_a_pod_names_where_it_says_so() -> Result<()> {
    test::run(async |test| {
        let node: Node = Api::all(test.client.clone()).get(test.agent.name()).await?;
        let features = node.status.and_then(|status| status.features);
        let strict = features.and_then(|features| features.supplemental_groups_policy);
        let mut spec = on_node(test);
        spec["securityContext"] = json!({ "supplementalGroupsPolicy": "Strict" });
        if strict != Some(true) {
            let words = &["phase=Failed", "reason=SupplementalGroupsPolicyNotSupported"];
            return all_said(test, vec![("strict", spec, words)]).await;
        }
        let more = json!({ "runAsUser": 3000, "runAsGroup": 3001,
            "supplementalGroups": [4000], "fsGroup": 4001, "supplementalGroupsPolicy": "Strict" });
        spec["securityContext"] = more;
        test.pod("strict", spec).await?;
        let pod = test.pod_until("strict", "to be ready", status::is_ready).await?;
        let told = status::container(&pod, "main").and_then(|it| it.user.clone()?.linux);
        let told = told.context("a user")?;
        assert_eq!((told.uid, told.gid), (3000, 3001));
        assert_eq!(told.supplemental_groups, Some(vec![3001, 4000, 4001]));
        let process = test.agent.sandboxes().pop().context("a process")?;
        let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid))?;
        let groups = text.lines().find_map(|line| line.strip_prefix("Groups:"));
        assert_eq!(groups.map(str::trim), Some("4000 4001"), "the process has no others");
        Ok(())
    })
    .await
}
