//! The files of an image: its layers applied, one after the other, to an empty folder.
//!
//! A tree has the name of its chain of layers (image specification, "Layer ChainID"): images with the same layers share
//! one. It grows in `partial/`, gets its name when it is whole and on disk, and is never changed after that.
//!
//! Read `apply.rs` for what a layer may do, `root.rs` for how it is kept inside, `archive.rs` and `inflate.rs` for what
//! is read of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Limits;
use crate::digest::Digest;
use crate::store::{Store, StoreError};

mod apply;
mod archive;
mod artifact;
mod error;
mod inflate;
mod name;
mod root;

pub(crate) use archive::{Archive, Entry, Kind as EntryKind};
pub(crate) use artifact::{Named, gather, names, of_files};
pub(crate) use error::LayerError;
pub(crate) use inflate::Inflated;
pub(crate) use root::Root;

use apply::{Budget, apply};

/// A layer that is on this node, its blob verified.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) blob: PathBuf,
    /// The digest of the layer when it is not compressed: the configuration's `diff_id`.
    pub(crate) diff: Digest,
}

/// A tree that did not grow.
#[derive(Debug)]
pub(crate) enum TreeError {
    /// This layer, by its place in the image, is at fault.
    Layer(usize, LayerError),
    /// This node is at fault.
    Store(StoreError),
}

/// The name of a chain of layers.
pub(crate) fn chain(layers: &[Layer]) -> Option<Digest> {
    let mut diffs = layers.iter().map(|layer| layer.diff.clone());
    let first = diffs.next()?;
    Some(diffs.fold(first, |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes())))
}

/// Applies the layers, and gives the tree its place. What has failed leaves nothing. Blocks.
pub(crate) fn grow(
    store: &Store,
    chain: &Digest,
    layers: &[Layer],
    limits: &Limits,
) -> Result<(), TreeError> {
    let scratch = store.scratch();
    let grown = fill(&scratch, layers, limits)
        .and_then(|()| store.adopt_tree(&scratch, chain).map_err(TreeError::Store));
    grown.inspect_err(|_| drop(fs::remove_dir_all(&scratch)))
}

pub(crate) fn fill(folder: &Path, layers: &[Layer], limits: &Limits) -> Result<(), TreeError> {
    let make = |error: std::io::Error| TreeError::Store(StoreError::on("create", folder)(error));
    fs::create_dir(folder).map_err(make)?;
    let root = Root::open(folder).map_err(make)?;
    root.open_to_all().map_err(make)?;
    let mut budget = Budget::new(limits);
    for (number, layer) in layers.iter().enumerate() {
        if let Err(error) = apply(&root, layer, number > 0, &mut budget) {
            return Err(match error.disk() {
                Ok(source) => TreeError::Store(StoreError::on("unpack into", folder)(source)),
                Err(error) => TreeError::Layer(number, error),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_named_as_the_specification_names_it() {
        let layer = |text: &str| Layer { blob: PathBuf::new(), diff: Digest::of(text.as_bytes()) };
        let [a, b] = ["a", "b"].map(layer);
        assert_eq!(chain(&[]), None);
        assert_eq!(chain(std::slice::from_ref(&a)), Some(a.diff.clone()));
        let both = Digest::of(format!("{} {}", a.diff, b.diff).as_bytes());
        assert_eq!(chain(&[a, b]), Some(both));
    }
}
