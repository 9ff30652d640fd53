//! Images as volumes: files that a pod mounts, and of which nothing is run (KEP-4639, "OCI VolumeSource").
//!
//! An ordinary image is a tree of files, the same that a container of it would have. Anything else is an artifact: each of its
//! layers is a file as it was pushed, whatever is in it (CRI-O's artifact store; containerd has no such volumes).

use std::path::PathBuf;

use crate::Inner;
use crate::classify::{IMAGE_CONFIGS, Packaging, Plan, is_tar, refuse};
use crate::clients::Way;
use crate::digest::Digest;
use crate::error::Problem;
use crate::fetch::Verified;
use crate::files::FILES;
use crate::holds::Hold;
use crate::image::{Gathered, Image, Record};
use crate::layout::Layout;
use crate::manifest::{Descriptor, Manifest, TITLE};
use crate::reference::Reference;
use crate::registry::Repository;
use crate::store::{Store, StoreError, blocking};
use crate::stranger::Stranger;
use crate::tree::{self, Named};

/// What an image is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// A container runs it: it must be Wasm.
    Run,
    /// A pod mounts its files: it may be anything.
    Mount,
}

impl Purpose {
    /// A record that serves it, as an image.
    pub(crate) fn image(
        self,
        record: Record,
        reference: &Reference,
        store: &Store,
        hold: Hold,
    ) -> Image {
        match self {
            Self::Run => record.image(reference, store, hold),
            Self::Mount => record.mounted(reference, store, hold),
        }
    }
}

/// What becomes the files of a volume.
#[derive(Debug)]
enum Files {
    /// Layers of files, one above the other.
    Tree(Box<Plan>),
    /// A file for each layer.
    Each(Vec<(Named, Descriptor)>),
}

impl Inner {
    pub(crate) fn find(&self, reference: &Reference, purpose: Purpose) -> Option<Image> {
        let digest = self.store.resolve(reference)?;
        let hold = self.holds.hold(self.store.record_path(&digest));
        let record = self.store.record(&digest).filter(|record| record.serves(purpose))?;
        self.uses.note(&digest);
        Some(purpose.image(record, reference, &self.store, hold))
    }

    /// As `find`; what was pulled for another purpose is looked at anew, and nobody is asked.
    pub(crate) async fn present(&self, reference: &Reference, purpose: Purpose) -> Option<Image> {
        if let Some(image) = self.find(reference, purpose) {
            return Some(image);
        }
        let digest = self.store.resolve(reference)?;
        let _hold = self.holds.hold(self.store.record_path(&digest));
        self.store.record(&digest)?;
        let made = self.make_from_store(reference, &digest, purpose).await;
        made.inspect_err(|problem| tracing::debug!(image = %reference, %problem, "not all here"))
            .ok()?;
        self.find(reference, purpose)
    }

    async fn make_from_store(
        &self,
        reference: &Reference,
        digest: &Digest,
        purpose: Purpose,
    ) -> Result<(), Problem> {
        let http = self.clients.client(&Way::default(), &self.config.patience)?;
        let layout = Layout { folder: self.store.root().to_owned(), limit: 0 };
        let store = Repository::folder(http, &self.config, reference, layout);
        let top = self.manifest(&store, &digest.to_string(), Some(digest)).await?;
        self.fetch(&store, reference, top, purpose).await.map(drop)
    }

    /// What there is to mount.
    pub(crate) async fn mountable(
        &self,
        repository: &Repository<'_>,
        chosen: &Verified,
        gathered: &mut Gathered,
    ) -> Result<Record, Problem> {
        let volume = match files(&chosen.manifest)? {
            Files::Tree(plan) => {
                let read = self.configuration(repository, chosen, &plan, gathered).await?;
                self.tree(repository, &plan, &read.diffs, gathered).await?
            }
            Files::Each(files) => Some(self.artifact(repository, files, gathered).await?),
        };
        Ok(Record { volume, ..Record::empty(&chosen.digest, Packaging::Files) })
    }

    /// Sees that the tree of an artifact's files is there; its name.
    async fn artifact(
        &self,
        repository: &Repository<'_>,
        files: Vec<(Named, Descriptor)>,
        gathered: &mut Gathered,
    ) -> Result<Digest, Problem> {
        self.measure(&files)?;
        let mut named = Vec::new();
        for (name, descriptor) in files {
            let blob = self.blob(repository, &descriptor, FILES, gathered).await?;
            named.push((name, blob));
        }
        let tree = tree::of_files(&named);
        gathered.holds.push(self.holds.hold(self.store.tree(&tree)));
        Ok(self.gather(&tree, named).await.map(|()| tree)?)
    }

    /// Sees that an artifact is within the limits of an image.
    fn measure(&self, files: &[(Named, Descriptor)]) -> Result<(), Problem> {
        let limits = &self.config.limits;
        if files.len() > limits.layers {
            return Err(Problem::TooManyLayers { count: files.len(), limit: limits.layers });
        }
        let size = files.iter().fold(0_u64, |all, (_, one)| all.saturating_add(one.size));
        match size > limits.unpacked {
            true => Err(Problem::TooLarge { what: "the artifact", size, limit: limits.unpacked }),
            false => Ok(()),
        }
    }

    async fn gather(&self, tree: &Digest, files: Vec<(Named, PathBuf)>) -> Result<(), StoreError> {
        let turn = self.trees.turn(tree.hex()).await;
        if self.store.tree(tree).is_dir() {
            return Ok(());
        }
        let (store, tree) = (self.store.clone(), tree.clone());
        blocking(move || {
            let gathered = tree::gather(&store, &tree, &files);
            drop(turn);
            gathered
        })
        .await
    }
}

/// Decides by the media types. Names are looked at before anything is fetched.
fn files(manifest: &Manifest) -> Result<Files, Problem> {
    let config = manifest.config.clone().unwrap_or_default();
    let layers = manifest.layers.as_deref().unwrap_or_default();
    let is_image = IMAGE_CONFIGS.contains(&config.media_type.as_str());
    if layers.is_empty() {
        return Err(refuse(manifest, Stranger::Empty));
    }
    if layers.iter().any(|layer| layer.media_type.ends_with("+encrypted")) {
        return Err(refuse(manifest, Stranger::Encrypted));
    }
    if is_image && layers.iter().all(is_tar) {
        let plan = Plan {
            packaging: Packaging::Files,
            wasm: None,
            layers: layers.to_vec(),
            places: ((0..layers.len()).collect(), layers.len()),
            config: Some(config),
        };
        return Ok(Files::Tree(Box::new(plan)));
    }
    let titles: Vec<_> = layers.iter().map(title).collect();
    let names = tree::names(&titles);
    let names = names.map_err(|(at, cause)| Problem::Title { number: at + 1, cause })?;
    Ok(Files::Each(names.into_iter().zip(layers.iter().cloned()).collect()))
}

/// The name that a layer was pushed with, or one of its digest.
fn title(layer: &Descriptor) -> String {
    let given = layer.annotations.get(TITLE).cloned();
    given.unwrap_or_else(|| layer.digest.replace(':', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    fn layer(media_type: &str, title: Option<&str>) -> Descriptor {
        let annotations = title.map(|title| (TITLE.to_owned(), title.to_owned()));
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(media_type.as_bytes()).to_string(),
            annotations: annotations.into_iter().collect(),
            ..Descriptor::default()
        }
    }

    fn of(config: &str, layers: Vec<Descriptor>) -> Result<Files, Problem> {
        let config = Some(layer(config, None));
        files(&Manifest { config, layers: Some(layers), ..Manifest::default() })
    }

    #[test]
    fn only_an_image_of_nothing_but_layers_of_files_is_unpacked() {
        let [image, _] = IMAGE_CONFIGS;
        for (config, layers, unpacked) in [
            (image, vec![layer(TAR, None)], true),
            (image, vec![layer(TAR, None), layer("application/wasm", None)], false),
            (EMPTY, vec![layer(TAR, None)], false),
            ("application/vnd.cncf.helm.config.v1+json", vec![layer("any/thing", None)], false),
        ] {
            let files = of(config, layers).unwrap();
            assert_eq!(matches!(files, Files::Tree(_)), unpacked, "{config}");
        }
        let encrypted = format!("{TAR}+encrypted");
        assert!(of(image, vec![layer(&encrypted, None)]).is_err());
        assert!(of(image, Vec::new()).is_err());
    }

    #[test]
    fn a_bad_title_names_its_layer() {
        for bad in ["../x", "/abs", "", ".", "a\0b", "a/../../b"] {
            let error = of(EMPTY, vec![layer("a", Some("good")), layer("b", Some(bad))]);
            let text = error.unwrap_err().to_string();
            assert!(text.starts_with("layer 2 of the artifact: "), "{text}");
            assert!(bad.contains('\0') || text.contains(bad), "{text}");
        }
        let long = "x".repeat(300);
        for (first, second) in [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("a", &long)]
        {
            assert!(
                of(EMPTY, vec![layer("a", Some(first)), layer("b", Some(second))]).is_err(),
                "{second}"
            );
        }
    }

    #[test]
    fn a_layer_without_a_title_has_its_digest_for_a_name() {
        let name = title(&layer("a", None));
        assert!(name.starts_with("sha256-") && name.len() == 71, "{name}");
    }
}
