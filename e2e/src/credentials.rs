//! A node's certificates: signed by our own authority, or asked of a cluster that is not ours.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::pki::{Authority, Pair, Subject, request};
use crate::wait;

/// The address of test nodes and of the demo's: nothing is offered to other machines.
pub const ADDRESS: &str = "127.0.0.1";

/// What a node shows to the API server and what it checks the API server by.
pub struct Credentials {
    /// Shows that it is this node.
    pub client: Pair,
    /// For its own HTTPS server.
    pub serving: Pair,
    /// Signed the API server's certificate, and what that shows to the node.
    pub authority: String,
}

impl Credentials {
    /// Signed here.
    pub fn sign(authority: &Authority, node: &str) -> Result<Self> {
        let (user, hosts) = (user(node), hosts(node));
        let subject = Subject { name: &user, group: Some(NODES), hosts: &[] };
        Ok(Self {
            client: authority.issue(&subject)?,
            serving: authority.issue(&Subject { hosts: &hosts, ..subject })?,
            authority: authority.certificate().to_owned(),
        })
    }

    /// Asked of a cluster whose administrator's kubeconfig this is.
    pub async fn request(kubeconfig: &Kubeconfig, node: &str) -> Result<Self> {
        let (user, hosts) = (user(node), hosts(node));
        let config =
            Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default())
                .await?;
        let admin = Client::try_from(config.clone())?;
        // A serving certificate is only for the node that asks for it itself.
        let mut as_node = config;
        as_node.auth_info.impersonate = Some(user.clone());
        as_node.auth_info.impersonate_groups =
            Some(vec![NODES.to_owned(), "system:authenticated".to_owned()]);
        let as_node = Client::try_from(as_node)?;
        let subject = Subject { name: &user, group: Some(NODES), hosts: &[] };
        let client =
            asked(&admin, &admin, &subject, "kubernetes.io/kube-apiserver-client", "client auth")
                .await?;
        let subject = Subject { hosts: &hosts, ..subject };
        let serving =
            asked(&admin, &as_node, &subject, "kubernetes.io/kubelet-serving", "server auth")
                .await?;
        Ok(Self { client, serving, authority: trusted(kubeconfig)? })
    }
}

const NODES: &str = "system:nodes";

fn user(node: &str) -> String {
    format!("system:node:{node}")
}

fn hosts(node: &str) -> [String; 2] {
    [ADDRESS.to_owned(), node.to_owned()]
}

/// The authority in a kubeconfig.
fn trusted(kubeconfig: &Kubeconfig) -> Result<String> {
    let cluster = kubeconfig
        .clusters
        .first()
        .and_then(|named| named.cluster.as_ref())
        .context("a cluster")?;
    if let Some(data) = &cluster.certificate_authority_data {
        return Ok(String::from_utf8(STANDARD.decode(data)?)?);
    }
    let path = cluster
        .certificate_authority
        .as_ref()
        .context("the kubeconfig names no certificate authority")?;
    std::fs::read_to_string(path).with_context(|| format!("read {path}"))
}

async fn asked(
    admin: &Client,
    asker: &Client,
    subject: &Subject<'_>,
    signer: &str,
    usage: &str,
) -> Result<Pair> {
    let (key, request) = request(subject)?;
    let spec = CertificateSigningRequestSpec {
        request: ByteString(request.into_bytes()),
        signer_name: signer.to_owned(),
        usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
        ..CertificateSigningRequestSpec::default()
    };
    let metadata =
        ObjectMeta { generate_name: Some("nodule-e2e-".to_owned()), ..ObjectMeta::default() };
    let new = CertificateSigningRequest { metadata, spec, status: None };
    let requests: Api<CertificateSigningRequest> = Api::all(asker.clone());
    let name = requests
        .create(&PostParams::default(), &new)
        .await
        .context("ask for a certificate")?
        .name_any();
    let requests: Api<CertificateSigningRequest> = Api::all(admin.clone());
    let approval = serde_json::json!({ "status": { "conditions": [approved()] } });
    requests
        .patch_approval(&name, &PatchParams::default(), &Patch::Strategic(approval))
        .await
        .context("approve it")?;
    let what = format!("certificate {name}");
    let issued = wait::until(requests, wait::named(&name), &what, |found| {
        found.iter().any(|request| certificate(request).is_some())
    });
    let certificate = issued.await?.first().and_then(certificate).context("a certificate")?;
    Ok(Pair { certificate, key })
}

fn approved() -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("NoduleEndToEndTest".to_owned()),
        ..CertificateSigningRequestCondition::default()
    }
}

fn certificate(request: &CertificateSigningRequest) -> Option<String> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    String::from_utf8(certificate.0.clone()).ok()
}
