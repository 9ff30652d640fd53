//! Which way of packaging Wasm an image uses: decided from its manifest alone.

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::manifest::{Descriptor, Manifest};
use crate::stranger::Stranger;

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
    /// An ordinary container image, of file system layers, with Wasm among its files.
    Root,
    /// An artifact without a configuration, made by `oras push FILE:application/wasm`.
    Plain,
    /// Files of a volume: so far nobody has wanted to run anything of it.
    Files,
}

impl Packaging {
    /// Whether it has an image's configuration, which says how to run it.
    pub(crate) fn is_image(self) -> bool {
        matches!(self, Self::Image | Self::Root)
    }
}

/// What has to be fetched to run an image.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) packaging: Packaging,
    /// The program, where it is a layer.
    pub(crate) wasm: Option<Descriptor>,
    /// File system layers, from the lowest up.
    pub(crate) layers: Vec<Descriptor>,
    /// The place of each of `layers` among all layers of the manifest, and how many those are.
    pub(crate) places: (Vec<usize>, usize),
    /// Where the configuration says how to run the Wasm, or can contradict the manifest.
    pub(crate) config: Option<Descriptor>,
}

const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LEGACY_CONFIGS: [&str; 2] =
    ["application/vnd.wasm.config.v1+json", "application/vnd.module.wasm.config.v1+json"];
pub(crate) const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const WASM_LAYERS: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];
const TAR_LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
/// The most layers that a refusal names.
const SHOWN: usize = 16;
const SPIN_LAYER: &str = "application/vnd.fermyon.spin.application.v1+config";

/// Decides by the media types, in an order in which each rule is narrower than those below.
pub(crate) fn classify(manifest: &Manifest) -> Result<Plan, Problem> {
    let config = manifest.config.clone().unwrap_or_default();
    let layers = manifest.layers.as_deref().unwrap_or_default();
    let (packaging, wasm) = match config.media_type.as_str() {
        _ if layers.iter().any(|layer| layer.media_type == SPIN_LAYER) => {
            return Err(refuse(manifest, Stranger::Spin));
        }
        WASM_CONFIG => (Packaging::Artifact, artifact(layers)),
        kind if LEGACY_CONFIGS.contains(&kind) => (Packaging::Legacy, legacy(layers, kind)),
        kind if IMAGE_CONFIGS.contains(&kind) => image(layers),
        _ => (Packaging::Plain, plain(layers)),
    };
    let wasm = wasm.map_err(|found| refuse(manifest, found))?.cloned();
    let wanted = matches!(packaging, Packaging::Artifact) || packaging.is_image();
    let files =
        layers.iter().enumerate().filter(|(_, layer)| packaging.is_image() && is_tar(layer));
    let (places, tars): (Vec<_>, Vec<_>) = files.map(|(at, layer)| (at, layer.clone())).unzip();
    let config = wanted.then_some(config);
    Ok(Plan { packaging, wasm, layers: tars, places: (places, layers.len()), config })
}

/// Says what a manifest is of.
pub(crate) fn refuse(manifest: &Manifest, found: Stranger) -> Problem {
    let layers = manifest.layers.iter().flatten().map(|layer| layer.media_type.clone());
    let config = manifest.config.clone().unwrap_or_default().media_type;
    Problem::NotWasm { found, config, layers: layers.take(SHOWN).collect() }
}

type Chosen<'l> = Result<Option<&'l Descriptor>, Stranger>;

fn artifact(layers: &[Descriptor]) -> Chosen<'_> {
    match layers {
        [layer] if layer.media_type == "application/wasm" => Ok(Some(layer)),
        _ => Err(Stranger::ArtifactLayers),
    }
}

/// Solo's tools add a second layer, of the configuration's type: that one is passed over.
fn legacy<'l>(layers: &'l [Descriptor], config: &str) -> Chosen<'l> {
    let mut layers = layers.iter().filter(|layer| layer.media_type != config);
    match (layers.next(), layers.next()) {
        (Some(layer), None) if is_wasm(layer) => Ok(Some(layer)),
        _ => Err(Stranger::LegacyLayers),
    }
}

/// With a Wasm layer that is the program, and all others are its files; without one it is among the files.
fn image(layers: &[Descriptor]) -> (Packaging, Chosen<'_>) {
    let mut wasm = layers.iter().filter(|layer| is_wasm(layer));
    let program = wasm.next();
    let packaging = if program.is_some() { Packaging::Image } else { Packaging::Root };
    let strange = layers.iter().find(|layer| !is_wasm(layer) && !is_tar(layer));
    let chosen = match strange {
        _ if layers.is_empty() => Err(Stranger::Empty),
        _ if wasm.next().is_some() => Err(Stranger::ManyWasmLayers),
        Some(layer) if layer.media_type.ends_with("+encrypted") => Err(Stranger::Encrypted),
        Some(_) => Err(Stranger::StrangeLayer),
        None => Ok(program),
    };
    (packaging, chosen)
}

fn plain(layers: &[Descriptor]) -> Chosen<'_> {
    match layers {
        [layer] if is_wasm(layer) => Ok(Some(layer)),
        [layer, ..] if layer.media_type.contains("helm.chart") => Err(Stranger::Helm),
        [] => Err(Stranger::Empty),
        _ => Err(Stranger::Unknown),
    }
}

fn is_wasm(layer: &Descriptor) -> bool {
    WASM_LAYERS.contains(&layer.media_type.as_str())
}

/// Layers of files. How they are compressed their own first bytes say; `foreign` and `nondistributable` ones are fetched as
/// any other, or not at all.
pub(crate) fn is_tar(layer: &Descriptor) -> bool {
    let known = TAR_LAYERS.iter().any(|prefix| layer.media_type.starts_with(prefix));
    known && !layer.media_type.ends_with("+encrypted")
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
            ..Manifest::default()
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
            assert_eq!(plan.wasm.unwrap().media_type, layers[0]);
        }
    }

    #[test]
    fn layers_of_files_are_a_root_or_lie_beside_the_program() {
        let [wasm, ..] = WASM_LAYERS;
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let plan = classified(IMAGE_CONFIGS[1], &[docker, TAR]).unwrap();
        assert_eq!((plan.packaging, plan.layers.len()), (Packaging::Root, 2));
        assert!(plan.wasm.is_none());
        let plan = classified(IMAGE_CONFIGS[0], &[TAR, wasm, TAR]).unwrap();
        assert_eq!((plan.packaging, plan.places), (Packaging::Image, (vec![0, 2], 3)));
        assert_eq!(plan.wasm.unwrap().media_type, wasm);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let [wasm, legacy, ..] = WASM_LAYERS;
        let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
        let helm = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
        for (config, layers, word) in [
            (WASM_CONFIG, &[wasm, wasm][..], "not one of application/wasm"),
            (WASM_CONFIG, &[], "not one of application/wasm"),
            (LEGACY_CONFIGS[0], &[legacy, legacy], "exactly one"),
            (IMAGE_CONFIGS[0], &[], "without layers"),
            (IMAGE_CONFIGS[0], &[wasm, "text/plain"], "of a kind that is not known"),
            (IMAGE_CONFIGS[0], &[encrypted], "encrypted"),
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
