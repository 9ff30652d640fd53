//! PersistentVolumeClaims: which folder of this node a claim is bound to.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume,
};
use kube::api::Api;
use nodule_volume::Source;
use tokio::time::timeout;

use crate::host::{Host, PATIENCE};
use crate::words::chain;

/// Why there is no volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The claim is to blame.
    Claim(String),
    /// The PersistentVolume is.
    Volume { name: String, why: String },
}

/// What a claim is bound to.
#[derive(Debug)]
pub(super) struct Claimed {
    /// The PersistentVolume's name.
    pub(super) volume: String,
    pub(super) source: Source,
}

/// Looks up the claim that a volume of the pod means, and what it is bound to.
pub(super) async fn find(host: &Host, pod: &Pod, volume: &Volume) -> Result<Claimed, Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = claim_name(pod, volume);
    let error = |why: &str| Error::Claim(format!("error processing PVC {namespace}/{name}: {why}"));
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(host.server().map_err(|why| error(&why))?, namespace);
    let claim = get(host, &claims, &name)
        .await
        .map_err(|why| error(&format!("failed to fetch PVC from API server: {why}")))?;
    let own = volume.ephemeral.is_none() || is_owned(&claim, pod);
    if !own {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let why = format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        );
        return Err(error(&why));
    }
    let bound = bound(&claim).map_err(error)?;
    let volumes: Api<PersistentVolume> = Api::all(host.server().map_err(|why| error(&why))?);
    let found = get(host, &volumes, &bound).await;
    let found = found
        .map_err(|why| error(&format!("failed to fetch PV {bound} from API server: {why}")))?;
    let source = source(&found.spec.unwrap_or_default());
    source
        .map(|source| Claimed { volume: bound.clone(), source })
        .map_err(|why| Error::Volume { name: bound, why })
}

async fn get<K>(host: &Host, api: &Api<K>, name: &str) -> Result<K, String>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let _slot = host.slots.acquire().await;
    match timeout(PATIENCE, api.get(name)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    }
}

/// A generic ephemeral volume's claim is named after the pod and the volume.
fn claim_name(pod: &Pod, volume: &Volume) -> String {
    match &volume.persistent_volume_claim {
        Some(claim) => claim.claim_name.clone(),
        None => {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            format!("{pod}-{}", volume.name)
        }
    }
}

fn is_owned(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| {
        owner.controller == Some(true) && pod.metadata.uid.as_ref() == Some(&owner.uid)
    })
}

/// The name of the PersistentVolume.
fn bound(claim: &PersistentVolumeClaim) -> Result<String, &'static str> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    match phase {
        _ if claim.metadata.deletion_timestamp.is_some() => Err("PVC is being deleted"),
        Some("Bound") if !name.is_empty() => Ok(name),
        _ => Err("PVC is not bound"),
    }
}

fn source(spec: &PersistentVolumeSpec) -> Result<Source, String> {
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("volumeMode Block is not supported by this node: a guest has files and no \
                    devices; use Filesystem"
            .to_owned());
    }
    if let Some(path) = &spec.host_path {
        return Ok(Source::Host(path.clone()));
    }
    if let Some(local) = &spec.local {
        return Ok(Source::Folder(PathBuf::from(&local.path)));
    }
    let kind = match &spec.csi {
        Some(csi) => format!("CSI driver {}", csi.driver),
        None => "this kind of PersistentVolume".to_owned(),
    };
    Err(format!(
        "{kind} is not supported by this node: it has PersistentVolumes of the kinds hostPath and local"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(phase: &str, volume: &str) -> PersistentVolumeClaim {
        let claim = json!({"metadata": {"name": "c", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1", "controller": true}]},
            "spec": {"volumeName": volume}, "status": {"phase": phase}});
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn only_a_claim_that_is_bound_names_a_volume() {
        assert_eq!(bound(&claim("Bound", "pv1")), Ok("pv1".to_owned()));
        assert_eq!(bound(&claim("Pending", "")), Err("PVC is not bound"));
        assert_eq!(bound(&claim("Lost", "pv1")), Err("PVC is not bound"));
        let mut going = claim("Bound", "pv1");
        let time =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        going.metadata.deletion_timestamp = Some(time);
        assert_eq!(bound(&going), Err("PVC is being deleted"));
    }

    #[test]
    fn an_ephemeral_volumes_claim_is_the_pods_own() {
        let pod = |uid: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid}})).unwrap()
        };
        let volume = |source: Value| -> Volume {
            let mut volume = json!({"name": "v"});
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            serde_json::from_value(volume).unwrap()
        };
        let named = volume(json!({"persistentVolumeClaim": {"claimName": "c"}}));
        assert_eq!(claim_name(&pod("u1"), &named), "c");
        assert_eq!(claim_name(&pod("u1"), &volume(json!({"ephemeral": {}}))), "p-v");
        assert!(is_owned(&claim("Bound", "x"), &pod("u1")));
        assert!(!is_owned(&claim("Bound", "x"), &pod("u2")));
    }

    #[test]
    fn folders_of_the_node_are_had_and_all_else_is_named() {
        let source = |spec: Value| source(&serde_json::from_value(spec).unwrap());
        assert!(matches!(source(json!({"hostPath": {"path": "/a"}})), Ok(Source::Host(_))));
        let local = source(json!({"local": {"path": "/b"}}));
        assert!(matches!(local, Ok(Source::Folder(path)) if *path == *"/b"));
        for (spec, words) in [
            (
                json!({"csi": {"driver": "ebs.csi", "volumeHandle": "h"}}),
                "CSI driver ebs.csi is not",
            ),
            (json!({"nfs": {"server": "s", "path": "/"}}), "this kind of PersistentVolume is not"),
            (
                json!({"volumeMode": "Block", "local": {"path": "/dev/x"}}),
                "volumeMode Block is not",
            ),
        ] {
            let error = source(spec).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
