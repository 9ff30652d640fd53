//! A PodCertificateRequest: made, and watched until it has its answer.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use k8s_openapi::api::certificates::v1beta1;
use k8s_openapi::api::core::v1::{Pod, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use kube::core::{ApiResource, Object, Status};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tracing::warn;

use super::key::{self, Key};
use super::verdict::is_end;
use crate::host::Host;
use crate::volumes::patience::patiently;
use crate::volumes::token::account;

const UNSERVED: &str = "podCertificate: the API server does not serve PodCertificateRequests (certificates.k8s.io/v1, as of Kubernetes 1.37)";

/// One of either version, as far as they have the same fields.
type Request = Object<PodCertificateRequestSpec, PodCertificateRequestStatus>;

/// Namespace and name.
#[derive(Debug, Clone)]
pub(in super::super) struct Name {
    namespace: String,
    name: String,
}

impl Name {
    #[cfg(test)]
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A request that was made.
#[derive(Debug, Clone)]
pub(in super::super) struct Asked {
    pub(super) name: Name,
    pub(super) signer: String,
    pub(super) key: Arc<Key>,
    pub(super) resource: ApiResource,
}

/// What became of a request.
#[derive(Debug)]
pub(in super::super) enum Answer {
    /// The signer has issued, denied, or failed.
    Ended(Box<PodCertificateRequestStatus>),
    /// It is gone, without an answer.
    Gone,
}

/// Makes a key and asks for its certificate.
pub(super) async fn ask(
    host: &Host,
    pod: &Pod,
    source: &PodCertificateProjection,
) -> Result<Asked, String> {
    let client = host.server()?;
    let kind = source.key_type.clone();
    let made = tokio::task::spawn_blocking(move || key::make(&kind)).await;
    let (key, proof) = made.map_err(|error| format!("make a key: {error}"))??;
    let _slot = host.slots.acquire().await;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let found = patiently(|| accounts.get(account(pod))).await?;
    let node = host.node().ok_or("the node is not registered yet")?;
    let uids = [found.metadata.uid, node.metadata.uid.clone()];
    let spec = spec(pod, source, &host.config.node, uids, proof);
    let meta = meta(pod);
    let (given, resource) = patiently(|| create(&client, &meta, &spec)).await?;
    let name = Name { namespace, name: given.metadata.name.unwrap_or_default() };
    Ok(Asked { name, signer: source.signer_name.clone(), key: Arc::new(key), resource })
}

/// Makes it in the newest version that is served: 1.37's, or that of 1.36 where it is switched on.
async fn create(
    client: &kube::Client,
    meta: &ObjectMeta,
    spec: &PodCertificateRequestSpec,
) -> kube::Result<(Request, ApiResource)> {
    let newest = ApiResource::erase::<PodCertificateRequest>(&());
    let older = ApiResource::erase::<v1beta1::PodCertificateRequest>(&());
    match create_in(client, &newest, meta, spec).await {
        Err(kube::Error::Api(status)) if is_unserved(&status) => {
            let given = create_in(client, &older, meta, spec).await;
            given.map(|given| (given, older)).map_err(unserved)
        }
        given => given.map(|given| (given, newest)),
    }
}

async fn create_in(
    client: &kube::Client,
    resource: &ApiResource,
    meta: &ObjectMeta,
    spec: &PodCertificateRequestSpec,
) -> kube::Result<Request> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<Request> = Api::namespaced_with(client.clone(), namespace, resource);
    let mut request = Request::new("", resource, spec.clone());
    request.metadata = meta.clone();
    api.create(&PostParams::default(), &request).await
}

/// Whether a 404 is of the resource itself: one of an object, as of a namespace that is gone, names it.
fn is_unserved(status: &Status) -> bool {
    let names = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    status.code == 404 && !names
}

fn unserved(error: kube::Error) -> kube::Error {
    let kube::Error::Api(mut status) = error else { return error };
    if is_unserved(&status) {
        UNSERVED.clone_into(&mut status.message);
    }
    kube::Error::Api(status)
}

fn meta(pod: &Pod) -> ObjectMeta {
    let meta = &pod.metadata;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        generate_name: Some("req-".to_owned()),
        namespace: meta.namespace.clone(),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The UIDs are those of the account and of the node.
fn spec(
    pod: &Pod,
    source: &PodCertificateProjection,
    node: &str,
    [account_uid, node_uid]: [Option<String>; 2],
    proof: Vec<u8>,
) -> PodCertificateRequestSpec {
    PodCertificateRequestSpec {
        max_expiration_seconds: source.max_expiration_seconds,
        node_name: node.to_owned(),
        node_uid: node_uid.unwrap_or_default(),
        pod_name: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        service_account_name: account(pod).to_owned(),
        service_account_uid: account_uid.unwrap_or_default(),
        signer_name: source.signer_name.clone(),
        stub_pkc_s10_request: ByteString(proof),
        unverified_user_annotations: source.user_annotations.clone(),
    }
}

/// Waits until the request has its answer or is gone. May be dropped.
pub(in super::super) async fn answer(client: kube::Client, node: String, asked: Asked) -> Answer {
    let Name { namespace, name } = &asked.name;
    let api: Api<Request> = Api::namespaced_with(client, namespace, &asked.resource);
    // A node may watch those of its own pods alone, and has to say so (the Node authorizer).
    let fields = format!("metadata.name={name},spec.nodeName={node}");
    let seen = watcher(api, watcher::Config::default().fields(&fields)).default_backoff();
    let mut seen = pin!(seen);
    let mut there = false;
    while let Some(event) = seen.next().await {
        match event {
            Ok(Event::Init) => there = false,
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                there = true;
                if let Some(status) = ended(&object) {
                    return Answer::Ended(Box::new(status));
                }
            }
            Ok(Event::Delete(_)) => return Answer::Gone,
            Ok(Event::InitDone) if !there => return Answer::Gone,
            Ok(Event::InitDone) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, %namespace, name, "certificate request not watched: tried again");
            }
        }
    }
    Answer::Gone
}

/// The status of one that has its answer.
fn ended(request: &Request) -> Option<PodCertificateRequestStatus> {
    let status = request.status.as_ref()?;
    status.conditions.iter().flatten().any(|it| is_end(&it.type_)).then(|| status.clone())
}
