//! As in `faults.rs`, each kind of request fails once: of those that are made for a pod's volumes, and for a static pod.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;

use crate::certificates::{SIGNER, Signer, signed};
use crate::claims::Disks;
use crate::faults::{FAULTS, count};
use crate::proxied::nothing_is_left;
use crate::proxy::Proxy;
use crate::statics;

/// What a node asks for a pod's volumes.
const VOLUMES: [&str; 6] = [
    "get persistentvolumeclaims",
    "get persistentvolumes",
    "get clustertrustbundles",
    "get serviceaccounts",
    "create podcertificaterequests",
    "list podcertificaterequests",
];
/// What it asks for a static pod, from its start to its end.
const MIRROR: [&str; 3] = ["create pods", "patch pods/status", "delete pods"];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_request_for_its_volumes_fails_once_a_pod_gets_them() -> Result<()> {
    test::run(async |test| {
        let proxy = Proxy::before(test).await?;
        let signer = Signer::new(test, false)?;
        let bundle = signer.bundle(test).await?;
        let disks = Disks::new(test, &["disk"]).await?;
        let claim = json!({ "metadata": { "name": "kept" }, "spec": disks.asks() });
        test.create::<PersistentVolumeClaim>(claim).await?;
        let each = Box::pin(async {
            for (n, fault) in FAULTS.into_iter().enumerate() {
                proxy.fail_each(fault);
                mounts(test, &format!("pod-{n}")).await.with_context(|| format!("{fault:?}"))?;
                proxy.each_met(&VOLUMES).await?;
                proxy.mend();
            }
            Ok(())
        });
        let outcome = signed(&signer, each).await;
        disks.remove().await?;
        bundle.remove().await?;
        outcome
    })
    .await
}

/// A pod that finds all of its volumes, at its only start.
async fn mounts(test: &Test<'_>, name: &str) -> Result<()> {
    let mut spec = test.spec(&["read", "/own/ca.pem"]);
    spec["restartPolicy"] = json!("Never");
    let own = json!({ "podCertificate": { "signerName": SIGNER, "keyType": "ED25519",
        "credentialBundlePath": "bundle.pem" } });
    let trust = json!({ "clusterTrustBundle": { "name": test.namespace, "path": "ca.pem" } });
    spec["volumes"] = json!([
        { "name": "own", "projected": { "sources": [own, trust] } },
        { "name": "data", "persistentVolumeClaim": { "claimName": "kept" } },
    ]);
    spec["containers"][0]["volumeMounts"] = json!([
        { "name": "own", "mountPath": "/own" }, { "name": "data", "mountPath": "/data" },
    ]);
    test.pod(name, spec).await?;
    test.pod_until(name, "to succeed", |pod| status::phase(pod) == "Succeeded").await?;
    let log = test.kubectl(&["logs", name])?;
    ensure!(log.starts_with("-----BEGIN CERTIFICATE-----"), "whom it trusts: {log:?}");
    let once = |events: &[Event]| count(events, name, "Started") == 1;
    wait::until(test.api(), wait::all(), "its one start to be told", once).await?;
    test.kubectl(&["delete", "pod", name])?;
    nothing_is_left(test).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_request_for_a_static_pod_fails_once_it_is_mirrored_and_starts_once() -> Result<()>
{
    test::run(async |test| {
        let proxy = Proxy::before(test).await?;
        let name = format!("web-{}", test.agent.name());
        for fault in FAULTS {
            proxy.fail_each(fault);
            mirrored(test, &name).await.with_context(|| format!("{fault:?}"))?;
            proxy.each_met(&MIRROR).await?;
            proxy.mend();
        }
        Ok(())
    })
    .await
}

/// A static pod from its manifest to its end.
async fn mirrored(test: &Test<'_>, name: &str) -> Result<()> {
    statics::write(test, "web.yaml", &statics::manifest(test, &json!({})))?;
    let pod = test.pod_until(name, "to be mirrored as Ready", status::is_ready).await?;
    ensure!(status::restarts(&pod) == 0 && test.agent.sandboxes().len() == 1, "{pod:?}");
    fs::remove_file(test.agent.file("manifests").join("web.yaml"))?;
    wait::until(test.api::<Pod>(), wait::named(name), "the mirror to go", <[_]>::is_empty).await?;
    nothing_is_left(test).await
}
