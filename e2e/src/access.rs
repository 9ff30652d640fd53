//! What a new cluster needs before nodes can join and pods can be made.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::wait;

/// Who gets which role: the bindings that kubeadm makes, and the one for the API server's own certificate.
const BINDINGS: [(&str, &str, &str, &str); 4] = [
    ("nodule-e2e:node-bootstrapper", "system:node-bootstrapper", "Group", "system:bootstrappers"),
    (
        "nodule-e2e:approve-new-nodes",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "Group",
        "system:bootstrappers",
    ),
    (
        "nodule-e2e:approve-renewals",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "Group",
        "system:nodes",
    ),
    ("nodule-e2e:kubelet-api", "system:kubelet-api-admin", "User", "kube-apiserver"),
];

/// A client for this kubeconfig, with no default namespace of its own.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config =
        kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
            .await?;
    Ok(Client::try_from(config)?)
}

/// Makes the bindings and waits until the default namespace has its service account: only then can a pod be made.
pub(crate) async fn grant(kubeconfig: &Path) -> Result<()> {
    let client = client(kubeconfig).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    for (name, role, kind, subject) in BINDINGS {
        let binding = binding(name, role, kind, subject);
        bindings
            .create(&PostParams::default(), &binding)
            .await
            .with_context(|| format!("bind {role} to {subject}"))?;
    }
    service_account(client, "default").await
}

/// Waits until a namespace has its service account.
pub async fn service_account(client: Client, namespace: &str) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let what = format!("the default service account of namespace {namespace}");
    wait::until(accounts, wait::named("default"), &what, |found| !found.is_empty()).await?;
    Ok(())
}

fn binding(name: &str, role: &str, kind: &str, subject: &str) -> ClusterRoleBinding {
    let api_group = "rbac.authorization.k8s.io".to_owned();
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        role_ref: RoleRef {
            api_group: Some(api_group.clone()),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(api_group),
            kind: kind.to_owned(),
            name: subject.to_owned(),
            namespace: None,
        }]),
    }
}
