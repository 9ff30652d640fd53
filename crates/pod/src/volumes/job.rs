//! One round of setting up a pod's volumes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use nodule_volume::{Files, Place, Site, Source, set_up};
use tokio::task::JoinError;

use super::bundle::Bundles;
use super::certificate::{Asked, Certificates, Note, Spot};
use super::claim::{self, Claimed};
use super::project::Projector;
use super::token::{Tokens, wishes};
use super::{Answered, Volumes, own};
use crate::field::Downward;
use crate::host::Host;
use crate::objects::Known;
use crate::words::chain;
use crate::{quantity, resources};

/// What a round is begun with.
pub(super) struct Job {
    pub(super) host: Arc<Host>,
    pub(super) pod: Arc<Pod>,
    pub(super) known: Known,
    /// The pod's own user.
    pub(super) user: Option<u32>,
    pub(super) site: Site,
    pub(super) tokens: Tokens,
    pub(super) certificates: Certificates,
    /// What became of requests for certificates.
    pub(super) answered: Vec<Answered>,
}

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(super) volumes: Volumes,
    pub(super) failed: Vec<Failed>,
    pub(super) warnings: Vec<String>,
    pub(super) tokens: Tokens,
    pub(super) certificates: Certificates,
    /// Requests for certificates whose answers are to be waited for.
    pub(super) asked: Vec<(Spot, Asked)>,
    /// What there is to tell of certificates.
    pub(super) notes: Vec<Note>,
    /// When there is something to do again.
    pub(super) due: Option<Timestamp>,
}

/// A volume that is not there.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) volume: String,
    pub(super) message: String,
    /// It is no failure yet: somebody may take another moment.
    pub(super) early: bool,
}

impl Failed {
    /// In the kubelet's words; `name` is the PersistentVolume's where there is one.
    fn set_up(volume: &str, name: &str, why: &str) -> Self {
        let message = format!("MountVolume.SetUp failed for volume \"{name}\" : {why}");
        Self { volume: volume.to_owned(), message, early: false }
    }
}

impl Job {
    pub(super) async fn run(mut self) -> Mounted {
        let now = Timestamp::now();
        let wishes = wishes(&self.pod);
        let due = self.tokens.renew(&self.host, &self.pod, &wishes, now).await;
        let bundles = Bundles::read(&self.host, &self.pod).await;
        let answered = std::mem::take(&mut self.answered);
        let look = self.certificates.renew(&self.host, &self.pod, answered, now).await;
        let mut mounted = Mounted {
            volumes: Volumes::new(),
            failed: Vec::new(),
            warnings: Vec::new(),
            tokens: Tokens::default(),
            certificates: Certificates::default(),
            asked: look.asked,
            notes: look.notes,
            due: [due, bundles.due(now), look.due].into_iter().flatten().min(),
        };
        for volume in own(&self.pod) {
            match self.one(volume, &bundles).await {
                Ok(Place { path, on_disk }) => {
                    if on_disk {
                        mounted.warnings.push(on_disk_warning(&volume.name));
                    }
                    mounted.volumes.insert(volume.name.clone(), path);
                }
                Err(failed) => {
                    let early = self.certificates.waits(&volume.name, now);
                    mounted.failed.push(Failed { early, ..failed });
                }
            }
        }
        mounted.tokens = self.tokens;
        mounted.certificates = self.certificates;
        mounted
    }

    async fn one(&self, volume: &Volume, bundles: &Bundles) -> Result<Place, Failed> {
        let (name, outer) = (volume.name.clone(), volume.name.as_str());
        let failed = |why: String| Failed::set_up(&name, outer, &why);
        let source = match self.source(volume, bundles).map_err(failed)? {
            Some(source) => (outer.to_owned(), source),
            None => {
                let claimed = claim::find(&self.host, &self.pod, volume).await;
                let Claimed { volume, source } =
                    claimed.map_err(|why| claim_failed(outer, &why))?;
                (volume, source)
            }
        };
        let (shown, source) = source;
        let on_disk =
            matches!(source, Source::Files { secret: true, .. }) && !self.host.has_memory();
        let (site, own) = (self.site.clone(), name.clone());
        let set = tokio::task::spawn_blocking(move || set_up(&own, &source, &site)).await;
        match set {
            Ok(Ok(place)) => Ok(Place { on_disk: place.on_disk || on_disk, ..place }),
            Ok(Err(error)) => Err(Failed::set_up(&name, &shown, &chain(&error))),
            Err(error) => Err(Failed::set_up(&name, &shown, &broken(&error))),
        }
    }

    /// What the volume is made of; none if a claim says so.
    fn source(&self, volume: &Volume, bundles: &Bundles) -> Result<Option<Source>, String> {
        let allocatable = self.host.allocatable();
        let config = &self.host.config;
        let projector = Projector {
            downward: Downward {
                pod: &self.pod,
                node: &config.node,
                addresses: &config.addresses,
                allocatable: &allocatable,
            },
            known: &self.known,
            tokens: &self.tokens,
            bundles,
            certificates: &self.certificates,
            user: self.user,
            group: self.site.group,
        };
        let files = |kind, files: Files, secret| Ok(Some(Source::Files { kind, files, secret }));
        if let Some(source) = &volume.empty_dir {
            return self.empty_dir(source).map(Some);
        }
        if let Some(source) = &volume.config_map {
            return files("configmap", projector.config_map(source)?, false);
        }
        if let Some(source) = &volume.secret {
            return files("secret", projector.secret(source)?, true);
        }
        if let Some(source) = &volume.projected {
            return files("projected", projector.projected(&volume.name, source)?, true);
        }
        if let Some(source) = &volume.downward_api {
            let mode = source.default_mode;
            return files("downward-api", projector.fields(source.items.as_ref(), mode)?, false);
        }
        match &volume.host_path {
            Some(source) => Ok(Some(Source::Host(source.clone()))),
            None if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() => {
                Ok(None)
            }
            None => Err(unsupported(&kind(volume))),
        }
    }

    fn empty_dir(&self, source: &EmptyDirVolumeSource) -> Result<Source, String> {
        let memory = match source.medium.as_deref().unwrap_or_default() {
            "" => false,
            "Memory" => true,
            other => return Err(unsupported(&format!("emptyDir with medium {other}"))),
        };
        let limit = source.size_limit.as_ref().and_then(quantity::bytes).filter(|size| *size > 0);
        let pod = resources::pod(&self.pod, None).memory;
        let node = self.host.allocatable().get("memory").and_then(quantity::bytes);
        let size = [limit, pod, node].into_iter().flatten().min();
        Ok(Source::Empty { memory, size })
    }
}

fn claim_failed(volume: &str, why: &claim::Error) -> Failed {
    let message = match why {
        claim::Error::Claim(why) => format!(
            "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: {why}"
        ),
        claim::Error::Volume { name, why } => return Failed::set_up(volume, name, why),
    };
    Failed { volume: volume.to_owned(), message, early: false }
}

fn on_disk_warning(volume: &str) -> String {
    format!(
        "volume \"{volume}\" belongs in memory and lies on the node's disk, for its owner alone: run the agent as root, or its runDir on a tmpfs"
    )
}

fn broken(error: &JoinError) -> String {
    format!("broken off: {error}")
}

fn unsupported(kind: &str) -> String {
    format!(
        "{kind} is not supported by this node: it has configMap, downwardAPI, emptyDir, hostPath, image, projected, secret, and PersistentVolumes of the kinds hostPath and local"
    )
}

/// The name of the one source that is set.
fn kind(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let set = fields.as_object().into_iter().flat_map(|fields| fields.keys());
    set.filter(|key| *key != "name").map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_that_is_not_to_be_had_is_named() {
        let volume = json!({"name": "v", "nfs": {"server": "s", "path": "/"}});
        let kind = kind(&serde_json::from_value(volume).unwrap());
        assert!(
            unsupported(&kind).starts_with("nfs is not supported by this node: it has configMap")
        );
    }

    #[test]
    fn failures_are_in_the_kubelets_words() {
        let failed = Failed::set_up("data", "data", "configmap \"app\" not found");
        let text = "MountVolume.SetUp failed for volume \"data\" : configmap \"app\" not found";
        assert_eq!(failed.message, text);
        let why = claim::Error::Claim("error processing PVC n/c: PVC is not bound".to_owned());
        assert_eq!(
            claim_failed("data", &why).message,
            "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[data]: error processing PVC n/c: PVC is not bound"
        );
    }
}
