//! Images that lie on this machine: a Wasm file, or a folder that tools wrote in the form of the OCI image layout.
//!
//! Each becomes an image `localhost/NAME@DIGEST` of the store, whose name says what is in it: a file that is changed later
//! is another image. `named.rs` gives names that pods can use, to what is in archives too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::Inner;
use crate::clients::Way;
use crate::digest::Digest;
use crate::error::PullError;
use crate::hosts::Trust;
use crate::image::Image;
use crate::layout::{Layout, regular};
use crate::manifest::Descriptor;
use crate::reference::{InvalidReference, Reference};
use crate::registry::Repository;
use crate::store::StoreError;
use crate::tree::LayerError;
use crate::volume::Purpose;
use crate::wasm::Kind;

mod archive;
mod named;

/// The OCI image layout's own name for the tag of a manifest.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What lies on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A Wasm binary.
    File(PathBuf),
    /// A folder with `oci-layout` and `index.json`.
    Layout {
        /// The folder.
        folder: PathBuf,
        /// Which of its images, if it has several.
        tag: Option<String>,
    },
}

impl Local {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Layout { folder: path, .. } => path,
        }
    }
}

/// What cannot be taken up.
#[derive(Debug, thiserror::Error)]
#[error("image {}", .path.display())]
pub struct ImportError {
    path: PathBuf,
    #[source]
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("read it")]
    Read(#[source] io::Error),
    #[error("it has more than {} MiB", .limit >> 20)]
    TooLarge { limit: u64 },
    #[error("it is no Wasm binary but {found}")]
    NotWasm { found: String },
    #[error("it is no OCI image layout: there is no readable index.json in it")]
    NoIndex(#[source] io::Error),
    #[error("its index.json cannot be understood: {cause}")]
    BadIndex { cause: String },
    #[error("it has no image \"{tag}\", but {known}")]
    NoTag { tag: String, known: String },
    #[error("it has several images, {known}: add the one that is meant, as FOLDER:TAG")]
    Several { known: String },
    #[error("its manifest has an unknown digest")]
    Digest,
    #[error("it is no Wasm binary, and no archive of images that can be read")]
    Archive(#[source] LayerError),
    #[error(
        "it is an archive, but not of images: there is neither an index.json nor a manifest.json in it"
    )]
    NoArchive,
    #[error("its manifest.json names {name:?}, which is not in it")]
    NoFile { name: String },
    #[error("there is no image in it")]
    Nothing,
    #[error("it has several images, {known}: take them up without a name, each has its own")]
    ManyNames { known: String },
    #[error("its image {digest} has no name, and is not the only one: write one of them alone")]
    Nameless { digest: String },
    #[error("an image in it cannot be named so")]
    Name(#[source] InvalidReference),
    #[error("{name:?} is no name with a tag: give it one, such as example.com/app:v1")]
    NoTagged { name: String },
    #[error("keep it")]
    Keep(#[source] StoreError),
    #[error("take it up")]
    Pull(#[source] Box<PullError>),
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Inner {
    pub(crate) async fn import(&self, local: &Local) -> Result<Image, ImportError> {
        let imported = match local {
            Local::File(path) => self.import_file(path).await,
            Local::Layout { folder, tag } => self.import_layout(folder, tag.as_deref()).await,
        };
        imported.map_err(|cause| ImportError { path: local.path().to_owned(), cause })
    }

    /// A Wasm file becomes an artifact (CNCF's Wasm OCI artifact layout) of this store's own making.
    async fn import_file(&self, path: &Path) -> Result<Image, Cause> {
        let content = self.content(path).await?;
        if let Err(found) = Kind::of(content.get(..8).unwrap_or(&content)) {
            return Err(Cause::NotWasm { found: found.to_string() });
        }
        let title = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let config = b"{}".to_vec();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.wasm.config.v0+json", &config, None),
            "layers": [described("application/wasm", &content, title)],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        let (store, folder) = (self.store.clone(), self.config.root.clone());
        // Nothing refers to them before the image does.
        let parts = [&content, &config, &manifest].map(|part| store.blob(&Digest::of(part)));
        let _holds = parts.map(|part| self.holds.hold(part));
        let kept = spawn_blocking(move || {
            [content, config, manifest]
                .iter()
                .try_for_each(|part| store.put(&Digest::of(part), part))
        });
        kept.await.map_err(|error| Cause::Read(error.into()))?.map_err(Cause::Keep)?;
        self.take_up(&name(path, &digest), folder).await
    }

    async fn content(&self, path: &Path) -> Result<Vec<u8>, Cause> {
        let limit = self.config.limits.wasm;
        let content = read(path, limit).await.map_err(Cause::Read)?;
        if content.len() as u64 > limit {
            return Err(Cause::TooLarge { limit });
        }
        Ok(content)
    }

    async fn import_layout(&self, folder: &Path, tag: Option<&str>) -> Result<Image, Cause> {
        let index = read(&folder.join("index.json"), self.config.limits.manifest).await;
        let index: Index = serde_json::from_slice(&index.map_err(Cause::NoIndex)?)
            .map_err(|error| Cause::BadIndex { cause: error.to_string() })?;
        let entry = choose(&index.manifests, tag)?;
        let digest = Digest::parse(&entry.digest).ok_or(Cause::Digest)?;
        self.take_up(&name(folder, &digest), folder.to_owned()).await
    }

    async fn take_up(&self, name: &str, folder: PathBuf) -> Result<Image, Cause> {
        let reference = Reference::parse(name).map_err(|_| Cause::Digest)?;
        let layout = Layout { folder, limit: self.config.limits.wasm };
        let failed =
            |problem| Cause::Pull(Box::new(PullError::new(&reference, problem, Vec::new())));
        let trust = Trust { is_plain: true, ..Trust::default() };
        let nobody = Way { trust, ..Way::default() };
        let client = self.clients.client(&nobody, &self.config.patience).map_err(failed)?;
        let repository = Repository::folder(client, &self.config, &reference, layout);
        Box::pin(self.pull_from(&repository, &reference, Purpose::Run)).await.map_err(failed)
    }
}

/// At most one byte more than `limit`.
async fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    let read = spawn_blocking(move || {
        let mut content = Vec::new();
        regular(File::open(path)?)?.take(limit + 1).read_to_end(&mut content)?;
        Ok(content)
    });
    read.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn described(kind: &str, content: &[u8], title: Option<String>) -> serde_json::Value {
    let title = title.map(|title| ("org.opencontainers.image.title", title));
    json!({
        "mediaType": kind, "digest": Digest::of(content).to_string(), "size": content.len(),
        "annotations": BTreeMap::from_iter(title),
    })
}

/// The image that is meant: the one of that tag, or the only one.
fn choose<'m>(manifests: &'m [Descriptor], tag: Option<&str>) -> Result<&'m Descriptor, Cause> {
    let of = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let known = || {
        let names: Vec<_> = manifests.iter().filter_map(of).collect();
        if names.is_empty() { "none that has a name".to_owned() } else { names.join(", ") }
    };
    match (tag, manifests) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Cause::Several { known: known() }),
        (Some(tag), _) => manifests
            .iter()
            .find(|entry| of(entry).as_deref() == Some(tag))
            .ok_or_else(|| Cause::NoTag { tag: tag.to_owned(), known: known() }),
    }
}

/// The name of an image by where it lies: only what a repository's name may have is kept of it.
fn name(path: &Path, digest: &Digest) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
    let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let kept: String =
        stem.unwrap_or_default().chars().map(|c| if usual(c) { c } else { '-' }).collect();
    let parts: Vec<_> = kept.split('-').filter(|part| !part.is_empty()).collect();
    let name = if parts.is_empty() { "image".to_owned() } else { parts.join("-") };
    format!("localhost/{}@{digest}", name.get(..100).unwrap_or(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_makes_a_name_whatever_it_is() {
        let digest = Digest::of(b"");
        for (path, expected) in [
            ("/a/App_v2.wasm", "localhost/app-v2@"),
            ("/a/../x", "localhost/x@"),
            ("/", "localhost/image@"),
            ("/a/ü ö.wasm", "localhost/image@"),
            ("/a/-.-.wasm", "localhost/image@"),
        ] {
            let name = name(Path::new(path), &digest);
            assert!(name.starts_with(expected), "{name}");
            Reference::parse(&name).unwrap();
        }
    }

    #[test]
    fn which_image_of_a_folder_is_meant_is_never_guessed() {
        let entry = |tag: Option<&str>| Descriptor {
            digest: format!("{tag:?}"),
            annotations: tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())).into_iter().collect(),
            ..Descriptor::default()
        };
        let two = [entry(Some("a")), entry(Some("b"))];
        assert_eq!(choose(&two, Some("b")).unwrap().digest, two[1].digest);
        assert!(choose(&two, None).unwrap_err().to_string().contains("a, b"));
        assert!(choose(&two, Some("c")).unwrap_err().to_string().contains("a, b"));
        assert!(choose(&[entry(None)], None).is_ok());
        assert!(choose(&[], None).is_err());
    }
}
