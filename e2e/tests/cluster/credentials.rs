//! Programs of the node that know credentials, and the pods whose images they open.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::PostParams;
use nodule_e2e::agent::Options;
use nodule_e2e::cluster::Cluster;
use nodule_e2e::layout::PRIVATE_REGISTRY;
use nodule_e2e::status;
use nodule_e2e::test::{self, Test};
use serde_json::json;

/// For whom the tokens are. Nodes may ask for no other than those of the pods' volumes and those that a role names.
const AUDIENCE: &str = "nodule-e2e-cloud";

/// A provider that gives the password to a pod whose account may read and whose token is for it, and none to others.
fn provider(folder: &Path, registry: &str) -> Result<()> {
    let (user, password) = PRIVATE_REGISTRY;
    let answer = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry", "auth": { registry: { "username": user, "password": password } },
    });
    let script = format!(
        r#"#!/bin/sh
question=$(cat)
case $question in *'"cloud.example/role":"reader"'*) ;; *) echo "no reader" >&2; exit 3 ;; esac
claims=$(printf %s "$question" | sed 's/.*"serviceAccountToken":"[^.]*\.\([^.]*\)\..*/\1/' | tr '_-' '/+' | base64 -d 2>/dev/null)
case $claims in *'"{AUDIENCE}"'*'"pod"'*) ;; *) echo "no token for me" >&2; exit 4 ;; esac
cat <<'END'
{answer}
END
"#
    );
    let path = folder.join("cloud");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "cloud", "matchImages": [registry], "defaultCacheDuration": "1h",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "tokenAttributes": {
                "serviceAccountTokenAudience": AUDIENCE, "cacheType": "ServiceAccount",
                "requireServiceAccount": true, "requiredServiceAccountAnnotationKeys": ["cloud.example/role"],
            },
        }],
    });
    Ok(fs::write(folder.join("providers.json"), config.to_string())?)
}

/// Lets nodes ask for tokens for the provider.
async fn grant(test: &Test<'_>) -> Result<()> {
    let name = format!("{}:audience", test.namespace);
    let namespaces: Api<Namespace> = Api::all(test.client.clone());
    let uid = namespaces.get(&test.namespace).await?.metadata.uid;
    // It goes with the test's namespace.
    let owner =
        json!([{ "apiVersion": "v1", "kind": "Namespace", "name": test.namespace, "uid": uid }]);
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": { "name": name, "ownerReferences": owner },
        "rules": [{ "verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": [AUDIENCE] }],
    }))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name, "ownerReferences": owner },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes" }],
    }))?;
    Api::all(test.client.clone()).create(&PostParams::default(), &role).await?;
    Api::all(test.client.clone()).create(&PostParams::default(), &binding).await?;
    Ok(())
}

#[tokio::test]
async fn the_nodes_own_file_opens_a_private_image_for_a_pod_without_secrets() -> Result<()> {
    test::run(async |test| {
        let registry = test.cluster.private_registry().host.clone();
        let (username, password) = PRIVATE_REGISTRY;
        let login = json!({ "username": username, "password": password });
        let config = json!({ "auths": { registry.as_str(): login } }).to_string();
        let mut spec = test.spec(&["lines", "0", "1000"]);
        spec["containers"][0]["image"] = json!(format!("{registry}/examples/probe:p1"));
        test.pod("it", spec).await?;
        let is_denied = |pod: &Pod| {
            let message = status::waiting(pod).and_then(|waiting| waiting.message.as_deref());
            message.is_some_and(|message| message.contains("access denied to anonymous"))
        };
        test.pod_until("it", "to be refused", is_denied).await?;
        // Read at the next pull.
        fs::write(test.agent.file("root").join("config.json"), config)?;
        test.pod_until("it", "to run", |pod| status::running(pod).is_some()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_credential_provider_opens_a_private_image_for_the_pods_of_an_account() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let (folder, host) = (tempfile::tempdir()?, cluster.private_registry().host.clone());
    provider(folder.path(), &host)?;
    let configuration = format!(
        "imageCredentialProviderConfigFile: {0}/providers.json\nimageCredentialProviderBinDir: {0}\n",
        folder.path().display()
    );
    test::run_with(&Options { configuration, ..Options::default() }, async |test| {
        grant(test).await?;
        for (name, role) in [("reader", "reader"), ("writer", "writer")] {
            let annotations = json!({ "cloud.example/role": role });
            let account = json!({ "metadata": { "name": name, "annotations": annotations } });
            test.create::<ServiceAccount>(account).await?;
        }
        for (name, account) in [("reader", "reader"), ("writer", "writer"), ("plain", "default")] {
            let mut spec = test.spec(&["lines", "0", "1000"]);
            spec["containers"][0]["image"] = json!(format!("{host}/examples/probe:p1"));
            spec["serviceAccountName"] = json!(account);
            test.pod(name, spec).await?;
        }
        test.pod_until("reader", "to run", |pod| status::running(pod).is_some()).await?;
        for (name, words) in [
            ("writer", "credential provider \"cloud\" ended with exit code 3"),
            // Its account says nothing of a role: the provider is not for it.
            ("plain", "anonymous"),
        ] {
            let is_told =
                |waiting: &str| waiting.contains("access denied") && waiting.contains(words);
            let told = format!("to be told {words}");
            test.pod_until(name, &told, |pod| {
                let message = status::waiting(pod).and_then(|waiting| waiting.message.as_deref());
                message.is_some_and(is_told)
            })
            .await?;
        }
        assert!(test.agent.log().contains("no reader"), "the provider's own words are in the log");
        Ok(())
    })
    .await
}
