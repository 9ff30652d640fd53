//! An archive of images: the tar file of an OCI image layout, or what `docker save` writes. Its files go to the store under
//! the digests that they have, whatever they are called; what no image refers to in the end is collected.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::Cause;
use crate::Inner;
use crate::digest::{Digest, Hasher};
use crate::holds::Hold;
use crate::image::Blob;
use crate::layout::regular;
use crate::store::StoreError;
use crate::tree::{Archive, Entry, EntryKind, Inflated, LayerError};

/// The files that say what is in an archive.
const TEXTS: [&str; 2] = ["index.json", "manifest.json"];
/// Links to links are followed so often.
const LINKS: usize = 8;

/// What an archive holds.
pub(super) struct Unpacked {
    files: BTreeMap<String, Item>,
    texts: BTreeMap<String, Vec<u8>>,
    /// Nothing refers to the files before an image does.
    holds: Vec<Hold>,
}

enum Item {
    Blob(Blob),
    /// To another path of the archive.
    Link(String),
}

/// A manifest that was made of what docker has saved, and the names that the image had.
pub(super) struct Manifest {
    pub(super) content: Vec<u8>,
    pub(super) names: Vec<String>,
}

/// `manifest.json`, as docker writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads an archive, compressed or not. Blocks.
pub(super) fn unpack(inner: &Inner, path: &Path) -> Result<Unpacked, Cause> {
    let file = File::open(path).and_then(regular).map_err(Cause::Read)?;
    let inflated = Inflated::new(file).map_err(Cause::Read)?;
    let mut archive = Archive::new(inflated);
    let mut unpacked =
        Unpacked { files: BTreeMap::new(), texts: BTreeMap::new(), holds: Vec::new() };
    let mut count = 0;
    while let Some(entry) = archive.next().map_err(Cause::Archive)? {
        count += 1;
        if count > inner.config.limits.files {
            return Err(Cause::Archive(LayerError::TooMany { limit: inner.config.limits.files }));
        }
        unpacked.add(inner, &mut archive, entry)?;
    }
    Ok(unpacked)
}

impl Unpacked {
    pub(super) fn text(&self, name: &str) -> Option<&[u8]> {
        self.texts.get(name).map(Vec::as_slice)
    }

    pub(super) fn hold(&mut self, hold: Hold) {
        self.holds.push(hold);
    }

    fn add<R: Read>(
        &mut self,
        inner: &Inner,
        archive: &mut Archive<R>,
        entry: Entry,
    ) -> Result<(), Cause> {
        let name = plain("", &String::from_utf8_lossy(&entry.name));
        let target = |link: &[u8]| String::from_utf8_lossy(link).into_owned();
        let item = match entry.kind {
            EntryKind::File if TEXTS.contains(&name.as_str()) => {
                let text = short(inner, archive, entry.size)?;
                self.texts.insert(name, text);
                return Ok(());
            }
            EntryKind::File => {
                let limit = inner.config.limits.layer;
                if entry.size > limit {
                    return Err(Cause::Archive(LayerError::TooLarge { limit }));
                }
                Item::Blob(self.keep(inner, archive, entry.size)?)
            }
            EntryKind::Symlink(link) => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Item::Link(plain(folder, &target(&link)))
            }
            EntryKind::HardLink(link) => Item::Link(plain("", &target(&link))),
            EntryKind::Folder | EntryKind::Device => return Ok(()),
        };
        self.files.insert(name, item);
        Ok(())
    }

    /// Puts a file into the store, under its own digest.
    fn keep<R: Read>(
        &mut self,
        inner: &Inner,
        archive: &mut Archive<R>,
        size: u64,
    ) -> Result<Blob, Cause> {
        let scratch = inner.store.scratch();
        let copied = copy(archive, size, &scratch);
        let adopted = copied.and_then(|digest| {
            let place = inner.store.blob(&digest);
            self.hold(inner.holds.hold(place.clone()));
            let blob = Blob { digest, size };
            match inner.store.has(&blob.digest, size) {
                true => drop(fs::remove_file(&scratch)),
                false => inner.store.adopt(&scratch, &place, 0o400).map_err(Cause::Keep)?,
            }
            Ok(blob)
        });
        adopted.inspect_err(|_| drop(fs::remove_file(&scratch)))
    }

    /// What `docker save` has saved: a manifest for each image, and the image's names.
    pub(super) fn saved(&self) -> Result<Vec<Manifest>, Cause> {
        let text = self.text("manifest.json").ok_or(Cause::NoArchive)?;
        let bad = |error: serde_json::Error| Cause::BadIndex { cause: error.to_string() };
        let saved: Vec<Saved> = serde_json::from_slice(text).map_err(bad)?;
        let manifest = |saved: &Saved| {
            let docker = "application/vnd.docker.container.image.v1+json";
            let tar = "application/vnd.docker.image.rootfs.diff.tar";
            let layers = saved.layers.iter().map(|layer| self.described(tar, layer));
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": self.described(docker, &saved.config)?,
                "layers": layers.collect::<Result<Vec<_>, _>>()?,
            });
            let names = saved.repo_tags.clone().unwrap_or_default();
            Ok(Manifest { content: manifest.to_string().into_bytes(), names })
        };
        saved.iter().map(manifest).collect()
    }

    fn described(&self, kind: &str, name: &str) -> Result<serde_json::Value, Cause> {
        let mut path = plain("", name);
        for _ in 0..LINKS {
            match self.files.get(&path) {
                Some(Item::Blob(Blob { digest, size })) => {
                    return Ok(json!({
                        "mediaType": kind, "digest": digest.to_string(), "size": size
                    }));
                }
                Some(Item::Link(target)) => path.clone_from(target),
                None => break,
            }
        }
        Err(Cause::NoFile { name: name.to_owned() })
    }
}

fn copy<R: Read>(archive: &mut Archive<R>, size: u64, to: &Path) -> Result<Digest, Cause> {
    let failed = |error| Cause::Keep(StoreError::on("write", to)(error));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut rest = size;
    while rest > 0 {
        let most = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..most).unwrap_or_default();
        let count = archive.content().read(piece).map_err(Cause::Read)?;
        if count == 0 {
            return Err(Cause::Archive(LayerError::Truncated));
        }
        let piece = buffer.get(..count).unwrap_or_default();
        archive.read(count as u64);
        hasher.update(piece);
        file.write_all(piece).map_err(failed)?;
        rest -= count as u64;
    }
    Ok(hasher.finish())
}

/// A file that is read as a whole.
fn short<R: Read>(inner: &Inner, archive: &mut Archive<R>, size: u64) -> Result<Vec<u8>, Cause> {
    let limit = inner.config.limits.manifest;
    if size > limit {
        return Err(Cause::TooLarge { limit });
    }
    let mut text = Vec::new();
    archive.content().take(size).read_to_end(&mut text).map_err(Cause::Read)?;
    archive.read(text.len() as u64);
    match text.len() as u64 == size {
        true => Ok(text),
        false => Err(Cause::Archive(LayerError::Read(io::ErrorKind::UnexpectedEof.into()))),
    }
}

/// A path of the archive, without what leads nowhere. It is but a key: no file of that name is ever opened.
fn plain(folder: &str, path: &str) -> String {
    let folder = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_key_whatever_it_leads_through() {
        for (folder, path, expected) in [
            ("", "./blobs/sha256/ab", "blobs/sha256/ab"),
            ("b", "../a/layer.tar", "a/layer.tar"),
            ("b", "/a//c/", "a/c"),
            ("", "../../x", "x"),
        ] {
            assert_eq!(plain(folder, path), expected);
        }
    }
}
