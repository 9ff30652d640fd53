//! Which way of packaging Wasm an image uses: decided from its manifest alone.

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::manifest::{Descriptor, Manifest};

/// The packagings that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packaging {
    /// The CNCF's Wasm OCI artifact, made by `wkg oci push` and others.
    Artifact,
    /// wasm-to-oci, Krustlet, Kubewarden, and the older wasmCloud and Solo variant.
    Legacy,
    /// An image with an ordinary configuration and a Wasm layer, made for runwasi.
    Image,
    /// An artifact without a configuration, made by `oras push FILE:application/wasm`.
    Plain,
}

/// What has to be fetched to run an image.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) packaging: Packaging,
    pub(crate) wasm: Descriptor,
    /// Where the configuration says how to run the Wasm, or can contradict the manifest.
    pub(crate) config: Option<Descriptor>,
}

const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LEGACY_CONFIGS: [&str; 2] =
    ["application/vnd.wasm.config.v1+json", "application/vnd.module.wasm.config.v1+json"];
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const WASM_LAYERS: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];
const SPIN_LAYER: &str = "application/vnd.fermyon.spin.application.v1+config";

/// Decides by the media types, in an order in which each rule is narrower than those below.
pub(crate) fn classify(manifest: &Manifest) -> Result<Plan, Problem> {
    let config = manifest.config.clone().unwrap_or_default();
    let layers = manifest.layers.as_deref().unwrap_or_default();
    let refuse = |why| Problem::NotWasm {
        why,
        config: config.media_type.clone(),
        layers: layers.iter().map(|layer| layer.media_type.clone()).collect(),
    };
    let (packaging, wasm) = match config.media_type.as_str() {
        _ if layers.iter().any(|layer| layer.media_type == SPIN_LAYER) => {
            return Err(refuse("a Spin application, which needs a Spin host"));
        }
        WASM_CONFIG => (Packaging::Artifact, artifact(layers)),
        kind if LEGACY_CONFIGS.contains(&kind) => (Packaging::Legacy, legacy(layers, kind)),
        kind if IMAGE_CONFIGS.contains(&kind) => (Packaging::Image, image(layers)),
        _ => (Packaging::Plain, plain(layers)),
    };
    let wasm = wasm.map_err(refuse)?.clone();
    let wanted = matches!(packaging, Packaging::Artifact | Packaging::Image);
    Ok(Plan { packaging, wasm, config: wanted.then_some(config) })
}

type Chosen<'l> = Result<&'l Descriptor, &'static str>;

fn artifact(layers: &[Descriptor]) -> Chosen<'_> {
    match layers {
        [layer] if layer.media_type == "application/wasm" => Ok(layer),
        _ => Err("a Wasm artifact whose layers are not one of application/wasm"),
    }
}

/// Solo's tools add a second layer, of the configuration's type: that one is passed over.
fn legacy<'l>(layers: &'l [Descriptor], config: &str) -> Chosen<'l> {
    let mut layers = layers.iter().filter(|layer| layer.media_type != config);
    match (layers.next(), layers.next()) {
        (Some(layer), None) if is_wasm(layer) => Ok(layer),
        _ => Err("a Wasm artifact without exactly one Wasm layer"),
    }
}

fn image(layers: &[Descriptor]) -> Chosen<'_> {
    match layers {
        [layer] if is_wasm(layer) => Ok(layer),
        _ if layers.iter().filter(|layer| is_wasm(layer)).count() > 1 => {
            Err("an image with more than one Wasm layer")
        }
        _ if layers.iter().any(is_wasm) => Err(
            "an image with a root filesystem beside its Wasm layer, which this version cannot run",
        ),
        _ => Err("a container image of file system layers, which this version cannot run"),
    }
}

fn plain(layers: &[Descriptor]) -> Chosen<'_> {
    match layers {
        [layer] if is_wasm(layer) => Ok(layer),
        [layer] if layer.media_type.contains("helm.chart") => Err("a Helm chart"),
        [] => Err("an artifact without layers"),
        _ => Err("an artifact of a kind that is not known here"),
    }
}

fn is_wasm(layer: &Descriptor) -> bool {
    WASM_LAYERS.contains(&layer.media_type.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    fn descriptor(media_type: &str) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), ..Descriptor::default() }
    }

    fn classified(config: &str, layers: &[&str]) -> Result<Plan, Problem> {
        classify(&Manifest {
            config: Some(descriptor(config)),
            layers: Some(layers.iter().map(|layer| descriptor(layer)).collect()),
            manifests: None,
        })
    }

    #[test]
    fn the_known_packagings_are_told_apart() {
        let [wasm, legacy, component, solo] = WASM_LAYERS;
        for (config, layers, expected) in [
            (WASM_CONFIG, &[wasm][..], Packaging::Artifact),
            (LEGACY_CONFIGS[0], &[legacy], Packaging::Legacy),
            (LEGACY_CONFIGS[1], &[solo, LEGACY_CONFIGS[1]], Packaging::Legacy),
            (IMAGE_CONFIGS[0], &[component], Packaging::Image),
            (IMAGE_CONFIGS[1], &[wasm], Packaging::Image),
            (EMPTY, &[wasm], Packaging::Plain),
            ("text/plain", &[wasm], Packaging::Plain),
        ] {
            let plan = classified(config, layers).unwrap();
            assert_eq!(plan.packaging, expected, "{config} {layers:?}");
            assert_eq!(plan.wasm.media_type, layers[0]);
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let [wasm, legacy, ..] = WASM_LAYERS;
        let helm = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
        for (config, layers, word) in [
            (WASM_CONFIG, &[wasm, wasm][..], "not one of application/wasm"),
            (WASM_CONFIG, &[], "not one of application/wasm"),
            (LEGACY_CONFIGS[0], &[legacy, legacy], "exactly one"),
            (IMAGE_CONFIGS[0], &[TAR, TAR], "container image"),
            (IMAGE_CONFIGS[0], &[], "container image"),
            (IMAGE_CONFIGS[0], &[wasm, TAR], "root filesystem"),
            (IMAGE_CONFIGS[0], &[wasm, wasm], "more than one"),
            (IMAGE_CONFIGS[0], &[legacy, SPIN_LAYER], "Spin"),
            ("application/vnd.cncf.helm.config.v1+json", &[helm], "Helm"),
            (EMPTY, &["text/plain"], "not known"),
            (EMPTY, &[], "without layers"),
        ] {
            let text = classified(config, layers).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains(config), "{text}");
            assert!(layers.iter().all(|layer| text.contains(layer)), "{text}");
        }
    }
}
