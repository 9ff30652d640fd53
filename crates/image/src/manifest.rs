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

/// The annotation that has the name of a file (image specification, "Pre-Defined Annotation Keys").
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// A manifest or an index.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    /// Only in an index.
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
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
        let title = self.annotations.get(TITLE);
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
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    pub(crate) config: Option<Execution>,
    pub(crate) rootfs: Option<RootFs>,
    /// Older versions of Spin push their own configuration as an image's.
    pub(crate) spin_lock_version: Option<serde::de::IgnoredAny>,
}

/// `rootfs` in the configuration of an image.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    /// The digests of the layers before they were compressed.
    pub(crate) diff_ids: Option<Vec<String>>,
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
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// crun's marks of Wasm in an image for another platform (crun, "Wasm on Kubernetes").
const MARKS: [(&str, &[&str]); 2] = [
    ("module.wasm.image/variant", &["compat", "compat-smart"]),
    ("run.oci.handler", &["wasm", "wasm-smart"]),
];

/// Whether annotations or labels say that there is Wasm inside.
pub(crate) fn is_marked(annotations: &BTreeMap<String, String>) -> bool {
    let is = |(key, values): &(&str, &[&str])| {
        annotations.get(*key).is_some_and(|value| values.contains(&value.as_str()))
    };
    MARKS.iter().any(is)
}

impl ImageConfig {
    /// Whether this is an image of native programs: another platform's, with nothing that speaks of Wasm. Looked at before
    /// its layers are fetched; what the program really is its first bytes say.
    pub(crate) fn is_native(&self, annotations: &BTreeMap<String, String>) -> bool {
        let (os, architecture) = (self.os.to_ascii_lowercase(), &self.architecture);
        if os.starts_with("wasi") || architecture.starts_with("wasm") || architecture.is_empty() {
            return false;
        }
        let Some(execution) = &self.config else { return false };
        let words = [&execution.entrypoint, &execution.cmd].map(|words| words.iter().flatten());
        let program = words.into_iter().flatten().next();
        let is_wasm = |name: &String| name.ends_with(".wasm");
        let is_labelled = execution.labels.as_ref().is_some_and(is_marked);
        !is_marked(annotations) && !is_labelled && program.is_some_and(|name| !is_wasm(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_another_platform_is_native_unless_something_speaks_of_wasm() {
        let none = BTreeMap::new();
        let mark = BTreeMap::from([("run.oci.handler".to_owned(), "wasm-smart".to_owned())]);
        for (config, annotations, expected) in [
            (r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/sh"]}}"#, &none, true),
            (r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/sh"]}}"#, &mark, false),
            (r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/a.wasm"]}}"#, &none, false),
            (
                r#"{"os":"linux","architecture":"amd64","config":{"Entrypoint":["/a"],"Cmd":["/a.wasm"]}}"#,
                &none,
                true,
            ),
            (
                r#"{"os":"linux","architecture":"arm64","config":{"Cmd":["a"],
                    "Labels":{"module.wasm.image/variant":"compat"}}}"#,
                &none,
                false,
            ),
            (r#"{"os":"linux","architecture":"amd64","config":{}}"#, &none, false),
            (r#"{"os":"linux","architecture":"wasm","config":{"Cmd":["a"]}}"#, &none, false),
            (r#"{"os":"wasip1","architecture":"arm64","config":{"Cmd":["a"]}}"#, &none, false),
            ("{}", &none, false),
        ] {
            let config: ImageConfig = serde_json::from_str(config).unwrap();
            assert_eq!(config.is_native(annotations), expected, "{config:?}");
        }
    }
}
