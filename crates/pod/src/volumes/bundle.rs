//! ClusterTrustBundles: certificate authorities that the cluster tells its pods, where its API server serves them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use k8s_openapi::api::certificates::v1beta1;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Pod};
use kube::api::{Api, ApiResource, ListParams};
use kube::core::{NotUsed, Object, Selector};
use tokio::time::timeout;

use super::patience::words;
use crate::host::{Host, PATIENCE};
use crate::restart::later;

/// How often they are read again: no later than the kubelet looks at a pod.
const AGAIN: Duration = Duration::from_secs(60);

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// One of either version: they have the same fields.
type Bundle = Object<ClusterTrustBundleSpec, NotUsed>;

/// What a pod's volumes want of them, as it was read.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    /// By the projection that wants it.
    read: BTreeMap<String, Result<String, String>>,
}

impl Bundles {
    /// Reads all that the pod wants.
    pub(super) async fn read(host: &Host, pod: &Pod) -> Self {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let projected = volumes.filter_map(|volume| volume.projected.as_ref());
        let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
        let mut bundles = Self::default();
        for source in sources.filter_map(|source| source.cluster_trust_bundle.as_ref()) {
            let read = timeout(PATIENCE, one(host, source)).await;
            let read = read.unwrap_or_else(|_| Err("the API server did not answer".to_owned()));
            bundles.read.insert(key(source), read);
        }
        bundles
    }

    /// When they are read again; none if there are none.
    pub(super) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        (!self.read.is_empty()).then(|| later(now, AGAIN))
    }

    /// The certificates; empty where there need not be any.
    pub(super) fn find(&self, source: &ClusterTrustBundleProjection) -> Result<String, String> {
        self.read.get(&key(source)).cloned().unwrap_or_else(|| Ok(String::new()))
    }
}

fn key(source: &ClusterTrustBundleProjection) -> String {
    format!("{source:?}")
}

async fn one(host: &Host, source: &ClusterTrustBundleProjection) -> Result<String, String> {
    let _slot = host.slots.acquire().await;
    let optional = source.optional == Some(true);
    let found = ask(&host.server()?, source).await.map_err(|error| words(&error))?;
    let pem: Vec<String> = found.into_iter().map(|bundle| bundle.spec.trust_bundle).collect();
    match (&source.name, pem.is_empty()) {
        (_, false) => Ok(merge(&pem)),
        (_, true) if optional => Ok(String::new()),
        (Some(name), true) => Err(format!("clustertrustbundle \"{name}\" not found")),
        (None, true) => {
            Err("combination of signerName and labelSelector matched zero ClusterTrustBundles"
                .to_owned())
        }
    }
}

/// Asks in the versions that there are, the newest first: Kubernetes serves the first from 1.37 on, and before it the other
/// where that is switched on. One that is not served has none.
async fn ask(
    client: &kube::Client,
    source: &ClusterTrustBundleProjection,
) -> kube::Result<Vec<Bundle>> {
    let versions = [
        ApiResource::erase::<ClusterTrustBundle>(&()),
        ApiResource::erase::<v1beta1::ClusterTrustBundle>(&()),
    ];
    for version in versions {
        let api = Api::all_with(client.clone(), &version);
        let found = match &source.name {
            Some(name) => api.get_opt(name).await.map(Vec::from_iter),
            None => list(&api, source).await,
        };
        match found {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Vec::new())
}

async fn list(
    api: &Api<Bundle>,
    source: &ClusterTrustBundleProjection,
) -> kube::Result<Vec<Bundle>> {
    // Without a selector nothing is meant, with an empty one all (the API's own words).
    let Some(selector) = &source.label_selector else { return Ok(Vec::new()) };
    let Ok(selector) = Selector::try_from(selector.clone()) else { return Ok(Vec::new()) };
    let signer = source.signer_name.as_deref().unwrap_or_default();
    let params =
        ListParams::default().fields(&format!("spec.signerName={signer}")).labels_from(&selector);
    Ok(api.list(&params).await?.items)
}

/// Each certificate once, in an order that nobody may rely on and that does not change by itself.
fn merge(bundles: &[String]) -> String {
    let blocks = bundles.iter().flat_map(|text| text.split(BEGIN).skip(1));
    let blocks = blocks.filter_map(|block| block.split(END).next());
    let body = |block: &str| block.split_whitespace().collect::<Vec<_>>().join("\n");
    let all: BTreeSet<String> = blocks.map(body).filter(|body| !body.is_empty()).collect();
    all.iter().map(|body| format!("{BEGIN}\n{body}\n{END}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_there_once() {
        let block = |body: &str| format!("{BEGIN}\n{body}\n{END}\n");
        let one = format!("# comment\n{}{}", block("bbb"), block("aaa\nccc"));
        let two = format!("{}\n{BEGIN} bbb {END}", block("ddd"));
        let merged = merge(&[one.clone(), two.clone()]);
        assert_eq!(merged, [block("aaa\nccc"), block("bbb"), block("ddd")].concat());
        assert_eq!(merge(&[two, one]), merged);
        assert_eq!(merge(&["nonsense".to_owned()]), "");
    }
}
