//! The parts of OCI manifests, indexes and configurations that matter here, read leniently.
//!
//! `urls` of a descriptor is left out on purpose: content comes from the registry that the
//! user named and from nowhere else.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All the types that are asked for: a registry may answer 404 for a type that is not.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or an index.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    /// Only in an index.
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

/// What a manifest says of a blob, or an index of a manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) artifact_type: Option<String>,
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The platform of an entry in an index.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

impl Descriptor {
    /// The name that whoever pushed the blob gave it.
    pub(crate) fn title(&self) -> Option<String> {
        let title = self.annotations.get("org.opencontainers.image.title");
        title.filter(|title| !title.is_empty()).cloned()
    }
}

/// The configuration of a CNCF Wasm artifact (`application/vnd.wasm.config.v0+json`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArtifactConfig {
    pub(crate) layer_digests: Option<Vec<String>>,
}

/// The configuration of an OCI or Docker image.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ImageConfig {
    pub(crate) config: Option<Execution>,
}

/// `config` in the configuration of an image: how it wants to be run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Execution {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
}
