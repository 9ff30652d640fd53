//! The files of an artifact: blobs of the store under the names that they were pushed with.
//!
//! They are no copies: a blob has one more name in the tree, and everybody may read it then. Others cannot come to it but by
//! the tree, as the folder of the blobs is the agent's alone.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{LayerError, shown};
use super::name::Name;
use super::root::{READABLE, Root};
use crate::digest::Digest;
use crate::store::{Store, StoreError};

/// The name of a file in an artifact: it leads nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named(Name);

/// Reads the titles of an artifact's layers: no two are in each other's way. An error comes with its layer's place.
pub(crate) fn names(titles: &[String]) -> Result<Vec<Named>, (usize, LayerError)> {
    let mut taken = BTreeSet::new();
    let mut folders = BTreeSet::new();
    let mut names = Vec::new();
    for (at, title) in titles.iter().enumerate() {
        let name = name(title).map_err(|error| (at, error))?;
        let path = name.path();
        let above: Vec<_> = name.above().map(|folder| folder.path()).collect();
        let clashes = taken.contains(&path) || folders.contains(&path);
        if clashes || above.iter().any(|folder| taken.contains(folder)) {
            return Err((at, LayerError::Twice { name: shown(title.as_bytes()) }));
        }
        folders.extend(above);
        taken.insert(path);
        names.push(Named(name));
    }
    Ok(names)
}

fn name(title: &str) -> Result<Name, LayerError> {
    let bad = |why| LayerError::Name { name: shown(title.as_bytes()), why };
    if title.starts_with('/') {
        return Err(LayerError::Escape { name: shown(title.as_bytes()) });
    }
    let name = Name::parse(title.as_bytes())?;
    match name.split() {
        Some(_) => Ok(name),
        None => Err(bad("it is empty")),
    }
}

/// The name of the tree of these files. No chain of layers has it: those are digests of digests alone.
pub(crate) fn of_files(files: &[(Named, PathBuf)]) -> Digest {
    let mut list = b"artifact".to_vec();
    for (Named(name), blob) in files {
        let blob = blob.file_name().unwrap_or_default();
        list.extend([&b"\0"[..], &name.path(), b"\0", blob.as_encoded_bytes()].concat());
    }
    Digest::of(&list)
}

/// Makes the tree of files, and gives it its place. What has failed leaves nothing. Blocks.
pub(crate) fn gather(
    store: &Store,
    tree: &Digest,
    files: &[(Named, PathBuf)],
) -> Result<(), StoreError> {
    let scratch = store.scratch();
    let made = fill(&scratch, files).and_then(|()| store.adopt_tree(&scratch, tree));
    made.inspect_err(|_| drop(fs::remove_dir_all(&scratch)))
}

fn fill(folder: &Path, files: &[(Named, PathBuf)]) -> Result<(), StoreError> {
    let make = |error| StoreError::on("create", folder)(error);
    fs::create_dir(folder).map_err(make)?;
    let root = Root::open(folder).map_err(make)?;
    root.open_to_all().map_err(make)?;
    for (Named(name), blob) in files {
        let readable = Permissions::from_mode(READABLE.as_raw_mode());
        fs::set_permissions(blob, readable).map_err(StoreError::on("set the mode of", blob))?;
        root.adopt(name, blob).map_err(StoreError::on("link", blob))?;
    }
    Ok(())
}
