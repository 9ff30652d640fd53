//! Claims on folders of the node, bound by the cluster's own controllers and its scheduler.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::{Value, json};

/// A class of storage and a volume of it for each of some folders of the node; they are the whole cluster's.
pub(crate) struct Disks {
    classes: Api<StorageClass>,
    volumes: Api<PersistentVolume>,
    class: String,
    names: Vec<String>,
}

impl Disks {
    pub(crate) async fn new(test: &Test<'_>, folders: &[&str]) -> Result<Self> {
        let (classes, volumes) = (Api::all(test.client.clone()), Api::all(test.client.clone()));
        let class = test.namespace.clone();
        let made = serde_json::from_value(json!({
            "metadata": { "name": class }, "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }))?;
        classes.create(&PostParams::default(), &made).await.context("make a class of storage")?;
        let mut disks = Self { classes, volumes, class, names: Vec::new() };
        for folder in folders {
            disks.add(test, folder).await.with_context(|| format!("make volume {folder}"))?;
        }
        Ok(disks)
    }

    async fn add(&mut self, test: &Test<'_>, folder: &str) -> Result<()> {
        let path = test.agent.file(folder);
        fs::create_dir(&path)?;
        let node = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [test.agent.name()] });
        let name = format!("{}-{folder}", self.class);
        let volume = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": {
            "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": self.class,
            "local": { "path": path },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [node] }] } },
        } }))?;
        self.volumes.create(&PostParams::default(), &volume).await?;
        self.names.push(name);
        Ok(())
    }

    /// What a claim asks for.
    pub(crate) fn asks(&self) -> Value {
        json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": self.class,
            "resources": { "requests": { "storage": "1Mi" } } })
    }

    pub(crate) async fn remove(self) -> Result<()> {
        for name in &self.names {
            self.volumes.delete(name, &DeleteParams::default()).await?;
        }
        self.classes.delete(&self.class, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// A pod that does this with what is mounted at `/data`.
fn pod(test: &Test<'_>, volume: &Value, arguments: &[&str]) -> Value {
    let mut spec = test.spec(arguments);
    spec["restartPolicy"] = json!("Never");
    spec["securityContext"] = json!({ "fsGroup": 3000 });
    spec["volumes"] = json!([volume]);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    spec
}

fn claimed(claim: &str) -> Value {
    json!({ "name": "data", "persistentVolumeClaim": { "claimName": claim } })
}

fn has_succeeded(pod: &Pod) -> bool {
    status::phase(pod) == "Succeeded"
}

#[tokio::test]
async fn what_a_pod_writes_to_its_claim_the_next_one_reads() -> Result<()> {
    test::run(async |test| {
        let disks = Disks::new(test, &["disk"]).await?;
        let claim = json!({ "metadata": { "name": "kept" }, "spec": disks.asks() });
        test.create::<PersistentVolumeClaim>(claim).await?;
        let outcome = Box::pin(kept(test)).await;
        disks.remove().await?;
        outcome
    })
    .await
}

async fn kept(test: &Test<'_>) -> Result<()> {
    test.pod("writes", pod(test, &claimed("kept"), &["write", "/data/a", "of the first"])).await?;
    test.pod_until("writes", "to succeed", has_succeeded).await?;
    test.kubectl(&["delete", "pod", "writes"])?;
    ensure!(fs::read(test.agent.file("disk/a"))? == b"of the first", "it lies on the node");

    test.pod("reads", pod(test, &claimed("kept"), &["read", "/data/a"])).await?;
    test.pod_until("reads", "to succeed", has_succeeded).await?;
    let log = test.kubectl(&["logs", "reads"])?;
    ensure!(log == "of the first\n", "another user of the same group reads it: {log:?}");

    // A claim that is deleted stays for as long as a pod uses it, and no pod may begin to.
    test.pod("stays", pod(test, &claimed("kept"), &["lines", "0", "1000"])).await?;
    test.pod_until("stays", "to be Ready", status::is_ready).await?;
    test.kubectl(&["delete", "pvc", "kept", "--wait=false"])?;
    let mut late = pod(test, &claimed("kept"), &["read", "/data/a"]);
    late["nodeName"] = json!(test.agent.name());
    test.pod("late", late).await?;
    let told = || {
        let told = test.kubectl(&["describe", "pod", "late"]).ok()?;
        told.contains("PVC is being deleted").then_some(())
    };
    wait::found("kubectl describe to say why the pod waits", told).await?;
    test.kubectl(&["delete", "pods", "--all"])?;
    wait::until(test.api::<PersistentVolumeClaim>(), wait::all(), "it to go", <[_]>::is_empty)
        .await?;
    ensure!(test.agent.file("disk/a").exists(), "its files are the volume's");
    Ok(())
}

#[tokio::test]
async fn an_ephemeral_volume_has_a_claim_that_goes_with_its_pod() -> Result<()> {
    test::run(async |test| {
        let disks = Disks::new(test, &["disk"]).await?;
        let template = json!({ "volumeClaimTemplate": { "spec": disks.asks() } });
        let volume = json!({ "name": "data", "ephemeral": template });
        let spec = pod(test, &volume, &["write", "/data/a", "b"]);
        let outcome = Box::pin(async {
            test.pod("it", spec).await?;
            test.pod_until("it", "to succeed", has_succeeded).await?;
            ensure!(fs::read(test.agent.file("disk/a"))? == b"b", "it lies on the node");
            let claims = test.kubectl(&["get", "pvc", "-o", "name"])?;
            ensure!(claims == "persistentvolumeclaim/it-data\n", "{claims}");
            test.kubectl(&["delete", "pod", "it"])?;
            let claims = test.api::<PersistentVolumeClaim>();
            wait::until(claims, wait::all(), "its claim to go", <[_]>::is_empty).await?;
            Ok(())
        })
        .await;
        disks.remove().await?;
        outcome
    })
    .await
}
