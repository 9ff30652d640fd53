//! Images that get names: of a Wasm file, of a folder in the form of the OCI image layout, of an archive of either form
//! that tools write. So a node without a registry has images that pods may name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::archive::{Manifest, Unpacked, unpack};
use super::{Cause, ImportError, Index, REF_NAME, read};
use crate::Inner;
use crate::digest::Digest;
use crate::image::Image;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::store::blocking;

/// containerd's own annotation of an image's whole name.
const WHOLE_NAME: &str = "io.containerd.image.name";

/// An image that was found in a folder or an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) said: Said,
}

/// What the folder or archive says of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Name(String),
    /// A tag alone: the repository is anybody's guess.
    Tag(String),
    Nothing,
}

impl Found {
    fn of(entry: &Descriptor) -> Result<Self, Cause> {
        let digest = Digest::parse(&entry.digest).ok_or(Cause::Digest)?;
        let said = match (entry.annotations.get(WHOLE_NAME), entry.annotations.get(REF_NAME)) {
            (Some(name), _) => Said::Name(name.clone()),
            (None, Some(name)) if name.contains(['/', ':']) => Said::Name(name.clone()),
            (None, Some(tag)) => Said::Tag(tag.clone()),
            (None, None) => Said::Nothing,
        };
        Ok(Self { digest, said })
    }
}

enum Form {
    Wasm,
    Folder,
    Archive,
}

impl Inner {
    pub(crate) async fn load(
        self: Arc<Self>,
        path: &Path,
        name: Option<&Reference>,
    ) -> Result<Vec<Image>, ImportError> {
        let loaded = match form(path).await {
            Ok(Form::Wasm) => self.load_file(path, name).await,
            Ok(Form::Folder) => self.load_folder(path, name).await,
            Ok(Form::Archive) => self.load_archive(path, name).await,
            Err(cause) => Err(cause),
        };
        loaded.map_err(|cause| ImportError { path: path.to_owned(), cause })
    }

    async fn load_file(&self, path: &Path, name: Option<&Reference>) -> Result<Vec<Image>, Cause> {
        let image = self.import_file(path).await?;
        let name = match name {
            Some(name) => name.clone(),
            None => parsed(&format!("{}:latest", image.reference.name()))?,
        };
        Ok(vec![self.call(image, &name).await?])
    }

    async fn load_folder(
        &self,
        folder: &Path,
        name: Option<&Reference>,
    ) -> Result<Vec<Image>, Cause> {
        let index = read(&folder.join("index.json"), self.config.limits.manifest).await;
        let found = indexed(&index.map_err(Cause::NoIndex)?)?;
        self.take_up_all(folder, name, found, folder).await
    }

    async fn load_archive(
        self: &Arc<Self>,
        path: &Path,
        name: Option<&Reference>,
    ) -> Result<Vec<Image>, Cause> {
        let (inner, archive) = (Arc::clone(self), path.to_owned());
        let unpacked = spawn_blocking(move || unpack(&inner, &archive)).await;
        let mut unpacked = unpacked.map_err(|error| Cause::Read(error.into()))??;
        let found = match unpacked.text("index.json") {
            Some(index) => indexed(index)?,
            None => self.saved(&mut unpacked).await?,
        };
        // What was unpacked lies in the store, and stays there as long as it is held.
        self.take_up_all(path, name, found, &self.config.root).await
    }

    /// Manifests for images that `docker save` of before 2024 wrote without any.
    async fn saved(&self, unpacked: &mut Unpacked) -> Result<Vec<Found>, Cause> {
        let manifests = unpacked.saved()?;
        let mut found = Vec::new();
        for Manifest { content, names } in manifests {
            let (store, digest) = (self.store.clone(), Digest::of(&content));
            unpacked.hold(self.holds.hold(store.blob(&digest)));
            let id = digest.clone();
            blocking(move || store.put(&id, &content)).await.map_err(Cause::Keep)?;
            let image = |said| Found { digest: digest.clone(), said };
            match names.is_empty() {
                true => found.push(image(Said::Nothing)),
                false => found.extend(names.into_iter().map(|name| image(Said::Name(name)))),
            }
        }
        Ok(found)
    }

    /// Takes up all that was found, under the names that it has or is given.
    async fn take_up_all(
        &self,
        path: &Path,
        name: Option<&Reference>,
        found: Vec<Found>,
        content: &Path,
    ) -> Result<Vec<Image>, Cause> {
        let names = names(path, name, &found)?;
        let mut images = Vec::new();
        for (found, name) in found.iter().zip(names) {
            let exact = format!("{}@{}", name.name(), found.digest);
            let image = self.take_up(&exact, PathBuf::from(content)).await?;
            images.push(self.call(image, &name).await?);
        }
        Ok(images)
    }

    /// Gives an image a name.
    async fn call(&self, image: Image, name: &Reference) -> Result<Image, Cause> {
        let (store, meant, digest) = (self.store.clone(), name.clone(), image.top.clone());
        blocking(move || store.put_name(&meant, &digest)).await.map_err(Cause::Keep)?;
        Ok(Image { reference: name.clone(), ..image })
    }
}

async fn form(path: &Path) -> Result<Form, Cause> {
    let path = path.to_owned();
    let look = move || {
        if path.is_dir() {
            return Ok(Form::Folder);
        }
        let mut start = Vec::new();
        super::regular(File::open(&path)?)?.take(8).read_to_end(&mut start)?;
        Ok(if start.starts_with(b"\0asm") { Form::Wasm } else { Form::Archive })
    };
    let looked = spawn_blocking(look).await;
    looked.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(Cause::Read)
}

fn indexed(index: &[u8]) -> Result<Vec<Found>, Cause> {
    let bad = |error: serde_json::Error| Cause::BadIndex { cause: error.to_string() };
    let index: Index = serde_json::from_slice(index).map_err(bad)?;
    index.manifests.iter().map(Found::of).collect()
}

/// The name of each image that was found: the one that is given, its own, or that of where it lies.
fn names(path: &Path, given: Option<&Reference>, found: &[Found]) -> Result<Vec<Reference>, Cause> {
    let known = || {
        let said = found.iter().map(|found| match &found.said {
            Said::Name(name) => name.clone(),
            Said::Tag(tag) => tag.clone(),
            Said::Nothing => found.digest.to_string(),
        });
        said.collect::<Vec<_>>().join(", ")
    };
    match (given, found) {
        (_, []) => return Err(Cause::Nothing),
        (Some(name), [_]) => return Ok(vec![name.clone()]),
        (Some(_), [_, ..]) => return Err(Cause::ManyNames { known: known() }),
        (None, _) => {}
    }
    let is_only = found.len() == 1;
    let own = |found: &Found| {
        let beside = |tag: &str| {
            let place = super::name(path, &found.digest);
            format!("{}:{tag}", place.split('@').next().unwrap_or_default())
        };
        match &found.said {
            Said::Name(name) => parsed(name),
            Said::Tag(tag) => parsed(&beside(tag)),
            Said::Nothing if is_only => parsed(&beside("latest")),
            Said::Nothing => Err(Cause::Nameless { digest: found.digest.to_string() }),
        }
    };
    found.iter().map(own).collect()
}

fn parsed(name: &str) -> Result<Reference, Cause> {
    let reference = Reference::parse(name).map_err(Cause::Name)?;
    // A name by digest alone would be no name that anybody can remember.
    match reference.tag() {
        Some(_) if reference.digest().is_none() => Ok(reference),
        _ => Err(Cause::NoTagged { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: &Said) -> Found {
        Found { digest: Digest::of(format!("{said:?}").as_bytes()), said: said.clone() }
    }

    fn named(said: &[Said], given: Option<&str>) -> Result<Vec<String>, String> {
        let given = given.map(|name| Reference::parse(name).unwrap());
        let found: Vec<_> = said.iter().map(found).collect();
        let names = names(Path::new("/a/My Tools.tar"), given.as_ref(), &found);
        names
            .map(|names| names.iter().map(ToString::to_string).collect())
            .map_err(|cause| cause.to_string())
    }

    #[test]
    fn an_image_has_the_name_that_it_is_given_or_its_own_or_that_of_its_place() {
        let name = |text: &str| Said::Name(text.to_owned());
        let tag = |text: &str| Said::Tag(text.to_owned());
        for (said, given, expected) in [
            (vec![Said::Nothing], Some("a.io/b:1"), vec!["a.io/b:1"]),
            (vec![name("c.io/d:2")], Some("a.io/b:1"), vec!["a.io/b:1"]),
            (
                vec![name("app:2"), tag("v3")],
                None,
                vec!["docker.io/library/app:2", "localhost/my-tools:v3"],
            ),
            (vec![Said::Nothing], None, vec!["localhost/my-tools:latest"]),
        ] {
            assert_eq!(named(&said, given).unwrap(), expected, "{said:?}");
        }
        let several = named(&[name("a:1"), tag("v1")], Some("b:1")).unwrap_err();
        assert!(several.contains("a:1, v1"), "{several}");
        assert!(named(&[name("A B")], None).is_err());
        assert!(named(&[Said::Nothing, tag("v1")], None).is_err());
        assert!(named(&[], None).unwrap_err().contains("no image"));
    }
}
