//! What is on disk, and only what is whole: everything is written beside its place, synced
//! and renamed.
//!
//! ```text
//! blobs/sha256/HEX                        content, verified when it was written
//! trees/HEX                               the files of a chain of layers, or of an artifact: tree.rs
//! images/HEX.json                         what the manifest or index HEX leads to
//! access/HEX.json                         who has proven to have access to the image HEX
//! refs/REGISTRY/REPOSITORY/_tags/TAG.json what a tag last resolved to
//! refs/REGISTRY/REPOSITORY/_digests/HEX.json  under which names a digest was pulled
//! aot/ENGINE/HEX.cwasm                    compiled here, for one engine
//! aot/ENGINE/HEX.json                     what it is, and its seal
//! programs/CHAIN/HEX                      a program that was found in the tree CHAIN
//! aot.key                                 the key of the seals
//! partial/                                what is being written
//! ```
//! No part of a repository's path begins with `_`: names never collide.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::access::Proofs;
use crate::digest::Digest;
use crate::image::Record;
use crate::reference::Reference;

mod names;
mod sweep;

pub(crate) use names::Named;

/// A download that was cut is taken up again within this time (containerd keeps
/// unreferenced ingests as long).
const PARTIAL_AGE: Duration = Duration::from_hours(24);

/// The folder that holds all images of this node. Only the agent writes there.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A file operation that failed. Its text has the system's reason in it.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {cause}", .path.display())]
pub struct StoreError {
    doing: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl StoreError {
    /// For `map_err`: names the operation and its object.
    pub(crate) fn on(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self { doing, path, cause }
    }
}

/// What a name resolved to.
#[derive(Debug, Serialize, Deserialize)]
struct Pointer {
    digest: Digest,
    /// When the registry was asked.
    at: jiff::Timestamp,
}

impl Store {
    /// Opens or creates a store, and clears what an interrupted agent left half written.
    pub(crate) fn open(root: PathBuf) -> Result<Self, StoreError> {
        let store = Self { root };
        for folder in
            ["blobs/sha256", "trees", "images", "access", "refs", "programs", "aot", "partial"]
        {
            make_folder(&store.root.join(folder))?;
        }
        store.clear_partials()?;
        Ok(store)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where the content of an unfinished download is.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// Where the files of a chain of layers are.
    pub(crate) fn tree(&self, chain: &Digest) -> PathBuf {
        self.root.join("trees").join(chain.hex())
    }

    /// Where compiled code is, a folder for each engine.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.root.join("aot")
    }

    /// Where the key of the seals is.
    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("aot.key")
    }

    /// Notes that a program was found in a tree: its compiled code stays as long as that.
    pub(crate) fn note_program(&self, tree: &Path, program: &Digest) -> Result<(), StoreError> {
        let Some(chain) = tree.file_name() else { return Ok(()) };
        let note = self.root.join("programs").join(chain).join(program.hex());
        if note.exists() { Ok(()) } else { self.write(&note, b"", 0o400) }
    }

    /// A new name in `partial/`: what is there never outlives the agent that made it.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("partial").join(format!("new-{:016x}", rand::random::<u64>()))
    }

    /// Whether a blob is here, whole.
    pub(crate) fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|file| file.is_file() && file.len() == size)
    }

    /// Keeps content whose digest the caller has computed.
    pub(crate) fn put(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        if self.has(digest, content.len() as u64) {
            return Ok(());
        }
        self.write(&self.blob(digest), content, 0o400)
    }

    /// What is known of an image, if all its content is here.
    pub(crate) fn record(&self, digest: &Digest) -> Option<Record> {
        let record: Record = read_json(&self.record_path(digest))?;
        let mut trees = record.tree.iter().chain(&record.volume);
        let has_all = trees.all(|tree| self.tree(tree).is_dir())
            && record.blobs.iter().all(|blob| self.has(&blob.digest, blob.size));
        has_all.then_some(record)
    }

    pub(crate) fn put_record(&self, record: &Record) -> Result<(), StoreError> {
        self.write_json(&self.record_path(&record.digest), record)
    }

    /// What proved access to an image. A file that cannot be read proves nothing to anybody.
    pub(crate) fn proofs(&self, image: &Digest) -> Result<Option<Proofs>, StoreError> {
        let path = self.proofs_path(image);
        match fs::read(&path) {
            Ok(content) => Ok(Some(serde_json::from_slice(&content).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::on("read", &path)(error)),
        }
    }

    pub(crate) fn put_proofs(&self, image: &Digest, proofs: &Proofs) -> Result<(), StoreError> {
        self.write_json(&self.proofs_path(image), proofs)
    }

    /// The images that have proofs, those too that are not here.
    pub(crate) fn proven(&self) -> Vec<Digest> {
        entries(&self.root.join("access")).iter().filter_map(|file| digest_of(file)).collect()
    }

    /// How many images have proofs, those first that are not here.
    pub(crate) fn count_proofs(&self) -> (i64, i64) {
        let proven = self.proven();
        let here = proven.iter().filter(|image| self.record_path(image).is_file()).count();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        (count(proven.len() - here), count(here))
    }

    fn proofs_path(&self, image: &Digest) -> PathBuf {
        self.root.join("access").join(format!("{}.json", image.hex()))
    }

    /// What a name means on this node.
    pub(crate) fn resolve(&self, name: &Reference) -> Option<Digest> {
        let path = match (name.digest(), name.tag()) {
            (Some(digest), _) => self.digest_path(name, digest),
            (None, tag) => self.tag_path(name, tag?),
        };
        read_json::<Pointer>(&path).map(|pointer| pointer.digest)
    }

    /// Notes that `name` is the image `digest`.
    pub(crate) fn put_name(&self, name: &Reference, digest: &Digest) -> Result<(), StoreError> {
        let pointer = Pointer { digest: digest.clone(), at: jiff::Timestamp::now() };
        self.write_json(&self.digest_path(name, digest), &pointer)?;
        match name.tag() {
            Some(tag) if name.digest().is_none() => {
                self.write_json(&self.tag_path(name, tag), &pointer)
            }
            _ => Ok(()),
        }
    }

    /// All images whose content is here.
    pub(crate) fn records(&self) -> Vec<Record> {
        let files = entries(&self.root.join("images"));
        let digests = files.iter().filter_map(|file| digest_of(file));
        digests.filter_map(|digest| self.record(&digest)).collect()
    }

    /// Every name that is known, with what it means. Digests come as `repo@sha256:…`.
    pub(crate) fn names(&self) -> Vec<(String, Digest)> {
        let mut names = Vec::new();
        walk_names(&self.root.join("refs"), "", &mut names);
        names
    }

    /// Moves a finished file to its place.
    pub(crate) fn adopt(&self, from: &Path, to: &Path, mode: u32) -> Result<(), StoreError> {
        let folder = to.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        fs::set_permissions(from, Permissions::from_mode(mode))
            .map_err(StoreError::on("set the mode of", from))?;
        sync(from)?;
        fs::rename(from, to).map_err(StoreError::on("rename to", to))?;
        sync(folder)
    }

    /// Gives a tree that has grown its place, if none is there. All of it is on disk then.
    pub(crate) fn adopt_tree(&self, from: &Path, chain: &Digest) -> Result<(), StoreError> {
        let (to, trees) = (self.tree(chain), self.root.join("trees"));
        let synced = File::open(from).and_then(|tree| Ok(rustix::fs::syncfs(&tree)?));
        synced.map_err(StoreError::on("sync", from))?;
        fs::rename(from, &to).map_err(StoreError::on("rename to", &to))?;
        sync(&trees)
    }

    pub(crate) fn record_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", digest.hex()))
    }

    fn tag_path(&self, name: &Reference, tag: &str) -> PathBuf {
        self.root.join("refs").join(name.name()).join("_tags").join(format!("{tag}.json"))
    }

    fn digest_path(&self, name: &Reference, digest: &Digest) -> PathBuf {
        let file = format!("{}.json", digest.hex());
        self.root.join("refs").join(name.name()).join("_digests").join(file)
    }

    pub(crate) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let content = serde_json::to_vec(value).map_err(io::Error::other);
        self.write(path, &content.map_err(StoreError::on("serialise", path))?, 0o400)
    }

    /// Puts a file there, whole.
    pub(crate) fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
        let scratch = self.scratch();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&scratch)
            .map_err(StoreError::on("create", &scratch))?;
        let written = file.write_all(content).map_err(StoreError::on("write", &scratch));
        let adopted = written.and_then(|()| self.adopt(&scratch, path, mode));
        adopted.inspect_err(|_| drop(fs::remove_file(&scratch)))
    }

    fn clear_partials(&self) -> Result<(), StoreError> {
        for path in entries(&self.root.join("partial")) {
            if !is_resumable(&path) {
                let removed =
                    if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(StoreError::on("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// File work off the async threads. It goes on if the caller is dropped: what it needs, the
/// turn too, is moved into it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.expect("file work does not panic and the runtime waits for it")
}

fn is_resumable(path: &Path) -> bool {
    let age = |file: fs::Metadata| SystemTime::now().duration_since(file.modified().ok()?).ok();
    let is_blob = path.file_name().is_some_and(|name| name.len() == 64);
    is_blob && fs::metadata(path).ok().and_then(age).is_some_and(|age| age < PARTIAL_AGE)
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::on("create folder", path))
}

fn sync(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(StoreError::on("sync", path))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let content = fs::read(path).ok()?;
    let value = serde_json::from_slice(&content);
    value
        .inspect_err(
            |error| tracing::warn!(%error, path = %path.display(), "unreadable, as if absent"),
        )
        .ok()
}

pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten();
    read.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

fn digest_of(file: &Path) -> Option<Digest> {
    Digest::parse(&format!("sha256:{}", file.file_stem()?.to_str()?))
}

fn walk_names(folder: &Path, name: &str, names: &mut Vec<(String, Digest)>) {
    for path in entries(folder) {
        let Some(part) = path.file_name().and_then(|part| part.to_str()) else { continue };
        match part {
            "_digests" => names.extend(entries(&path).iter().filter_map(|file| {
                let digest = digest_of(file)?;
                Some((format!("{name}@{digest}"), digest))
            })),
            "_tags" => names.extend(entries(&path).iter().filter_map(|file| {
                let tag = file.file_stem()?.to_str()?;
                Some((format!("{name}:{tag}"), read_json::<Pointer>(file)?.digest))
            })),
            _ if name.is_empty() => walk_names(&path, part, names),
            _ => walk_names(&path, &format!("{name}/{part}"), names),
        }
    }
}
