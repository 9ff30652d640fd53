//! What the cluster tells a pod: ConfigMaps, Secrets, its token, in variables and files.

use anyhow::{Context, Result};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use nodule_e2e::{status, test, wait};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;

use crate::guests::{UNTIL_GO, artifact};

#[tokio::test]
async fn a_pod_waits_for_its_config_map_and_its_secret_and_finds_both() -> Result<()> {
    const ACCESS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    test::run(async |test| {
        let container = |name: &str, arguments: &[&str]| {
            json!({
                "name": name, "image": test.image("examples/probe:p1"), "args": arguments,
                "volumeMounts": [{ "name": "config", "mountPath": "/config" }],
                "env": [
                    { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } },
                    { "name": "API", "value": "$(KUBERNETES_SERVICE_PORT)" },
                ],
            })
        };
        let mut spec = test.spec(&[]);
        spec["restartPolicy"] = json!("Never");
        spec["volumes"] = json!([{ "name": "config", "configMap": { "name": "app" } }]);
        spec["containers"] = json!([
            container("file", &["read", "/config/colour"]),
            container("namespace", &["read", &format!("{ACCESS}/namespace")]),
            container("access", &["ls", ACCESS]),
            container("hosts", &["read", "/etc/hostname"]),
            container("env", &["show"]),
        ]);
        test.pod("told", spec).await?;
        let missing = |events: &[Event]| {
            events.iter().any(|event| {
                let message = event.message.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some("FailedMount")
                    && message.ends_with("volume \"config\" : configmap \"app\" not found")
            })
        };
        wait::until(test.api::<Event>(), wait::all(), "the Event", missing).await?;
        test.create::<ConfigMap>(json!({ "metadata": { "name": "app" }, "data": { "colour": "green" } }))
            .await?;
        let held = "to wait for its Secret";
        test.pod_until("told", held, |pod| {
            let state = status::container(pod, "env").and_then(|status| status.state.as_ref());
            let waiting = state.and_then(|state| state.waiting.as_ref());
            waiting.is_some_and(|waiting| {
                waiting.reason.as_deref() == Some("CreateContainerConfigError")
                    && waiting.message.as_deref() == Some("secret \"key\" not found")
            })
        })
        .await?;
        test.create::<Secret>(json!({ "metadata": { "name": "key" }, "stringData": { "k": "open" } }))
            .await?;
        test.pod_until("told", "to have succeeded", |pod| status::phase(pod) == "Succeeded").await?;
        let log = |container| test.kubectl(&["logs", "told", "-c", container]);
        assert_eq!(log("file")?.trim_end(), "green");
        assert_eq!(log("hosts")?.trim_end(), "told");
        let names = log("access")?;
        for name in ["ca.crt", "namespace", "token"] {
            assert!(names.lines().any(|line| line.trim_end_matches('/') == name), "{names}");
        }
        let env = log("env")?;
        assert!(env.lines().any(|line| line == "env KEY=open"), "{env}");
        assert!(env.lines().any(|line| line == "env API=443"), "{env}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_change_of_a_mounted_config_map_is_seen_by_the_running_guest() -> Result<()> {
    test::run(async |test| {
        test.create::<ConfigMap>(json!({ "metadata": { "name": "app" }, "data": { "a": "1" } }))
            .await?;
        let image =
            test.cluster.registry().push("tests/until-go:config", &artifact(UNTIL_GO)?).await?;
        let mut spec = test.spec(&[]);
        spec["restartPolicy"] = json!("Never");
        spec["containers"][0]["image"] = json!(image);
        spec["containers"][0]["volumeMounts"] =
            json!([{ "name": "config", "mountPath": "/config" }]);
        spec["volumes"] = json!([{ "name": "config", "configMap": { "name": "app" } }]);
        test.pod("looks", spec).await?;
        test.pod_until("looks", "to run", |pod| status::running(pod).is_some()).await?;
        let go = Patch::Merge(json!({ "data": { "go": "" } }));
        test.api::<ConfigMap>().patch("app", &PatchParams::default(), &go).await?;
        let pod =
            test.pod_until("looks", "to end", |pod| status::terminated(pod).is_some()).await?;
        assert_eq!(status::terminated(&pod).context("ended")?.exit_code, 7);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_is_told_whom_the_cluster_trusts() -> Result<()> {
    test::run(async |test| {
        let own = test.namespace.clone();
        let (named, signed) = (authority()?, authority()?);
        let signer = "example.com/e2e";
        let bundles = [
            json!({ "metadata": { "name": own }, "spec": { "trustBundle": named } }),
            json!({
                "metadata": { "name": format!("example.com:e2e:{own}"), "labels": { "of": own } },
                "spec": { "signerName": signer, "trustBundle": signed },
            }),
        ];
        let api: Api<ClusterTrustBundle> = Api::all(test.client.clone());
        for bundle in bundles.clone() {
            api.create(&PostParams::default(), &serde_json::from_value(bundle)?).await?;
        }
        let mut spec = test.spec(&[]);
        spec["restartPolicy"] = json!("Never");
        spec["volumes"] = json!([{ "name": "trust", "projected": { "sources": [
            { "clusterTrustBundle": { "name": own, "path": "named" } },
            { "clusterTrustBundle": {
                "signerName": signer, "labelSelector": { "matchLabels": { "of": own } }, "path": "signed",
            } },
        ] } }]);
        spec["containers"] = ["named", "signed"]
            .map(|name| {
                json!({
                    "name": name, "image": test.image("examples/probe:p1"),
                    "args": ["read", format!("/trust/{name}")],
                    "volumeMounts": [{ "name": "trust", "mountPath": "/trust" }],
                })
            })
            .into();
        test.pod("trusts", spec).await?;
        test.pod_until("trusts", "to have succeeded", |pod| status::phase(pod) == "Succeeded")
            .await?;
        for (container, wanted) in [("named", named), ("signed", signed)] {
            let read = test.kubectl(&["logs", "trusts", "-c", container])?;
            assert!(read.split_whitespace().eq(wanted.split_whitespace()), "{container}: {read}");
        }
        for bundle in bundles {
            let name = bundle["metadata"]["name"].as_str().unwrap_or_default();
            api.delete(name, &DeleteParams::default()).await?;
        }
        Ok(())
    })
    .await
}

/// The certificate of an authority that nobody knows, as PEM.
fn authority() -> Result<String> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params.self_signed(&KeyPair::generate()?)?.pem())
}
