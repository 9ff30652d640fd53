//! What is in the store, for people who look.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::classify::Packaging;
use crate::digest::Digest;
use crate::image::Record;
use crate::reference::{InvalidReference, Reference};
use crate::store::Named;
use crate::wasm::Kind;
use crate::{Images, Inner};

/// An image of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stocked {
    /// `sha256:…` of its manifest, or of the index above it.
    pub digest: String,
    /// Its names with a tag.
    pub tags: Vec<String>,
    /// Its names with the digest.
    pub digests: Vec<String>,
    /// How it is packaged.
    pub packaging: Packaging,
    /// What its program is, where the image is one: among files only the one that is run tells.
    pub kind: Option<Kind>,
    /// Bytes of all its content.
    pub size: u64,
    /// When it was last pulled or taken up.
    pub pulled: Option<Timestamp>,
}

/// A name that means no image of this node.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// It is no name.
    #[error(transparent)]
    Invalid(#[from] InvalidReference),
    /// Nothing has it.
    #[error("there is no image {name} on this node: nodule image ls lists those that are")]
    Unknown {
        /// As it was given.
        name: String,
    },
    /// Several images have digests that begin so.
    #[error("there are {count} images whose digests begin with {name}: give more of it")]
    Ambiguous {
        /// As it was given.
        name: String,
        /// How many.
        count: usize,
    },
}

impl Images {
    /// All images, in the order of their names.
    pub fn stock(&self) -> Vec<Stocked> {
        let _counted = self.0.metrics.operation("list_images");
        let named = self.0.store.all_named();
        let records = self.0.store.records().into_iter();
        let mut stock: Vec<_> = records.map(|record| stocked(&record, &named)).collect();
        stock.sort_by(|a, b| (&a.tags, &a.digests).cmp(&(&b.tags, &b.digests)));
        stock
    }
}

pub(crate) fn stocked(record: &Record, named: &[Named]) -> Stocked {
    let own: Vec<_> = named.iter().filter(|name| name.digest == record.digest).collect();
    let (tags, digests): (Vec<&Named>, Vec<_>) = own.iter().partition(|name| name.has_tag());
    let shown = |names: Vec<&Named>| names.iter().map(|name| name.reference.to_string()).collect();
    Stocked {
        digest: record.digest.to_string(),
        tags: shown(tags),
        digests: shown(digests),
        packaging: record.packaging,
        kind: record.wasm.as_ref().map(|wasm| wasm.kind),
        size: record.size(),
        pulled: own.iter().map(|name| name.at).max(),
    }
}

impl Inner {
    /// The image that is meant by a name, or by the beginning of its digest (`sha256:…`).
    pub(crate) fn look_up(&self, name: &str) -> Result<Record, LookUpError> {
        let unknown = || LookUpError::Unknown { name: name.to_owned() };
        if !name.starts_with("sha256:") {
            let digest = self.store.resolve(&Reference::parse(name)?).ok_or_else(unknown)?;
            return self.store.record(&digest).ok_or_else(unknown);
        }
        let begins = |digest: &Digest| name != "sha256:" && digest.to_string().starts_with(name);
        let mut records: Vec<_> =
            self.store.records().into_iter().filter(|record| begins(&record.digest)).collect();
        match (records.pop(), records.len()) {
            (None, _) => Err(unknown()),
            (Some(record), 0) => Ok(record),
            (Some(_), more) => {
                Err(LookUpError::Ambiguous { name: name.to_owned(), count: more + 1 })
            }
        }
    }
}

impl Images {
    /// The images that these paths are of, each `sha256:…`: what lies below an image's files, or is its compiled code.
    pub fn owners(&self, paths: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        if paths.is_empty() {
            return BTreeSet::new();
        }
        let store = &self.0.store;
        let mut records = store.records();
        records.retain(|record| store.is_of(record, paths));
        records.into_iter().map(|record| record.digest.to_string()).collect()
    }
}

/// Whether an image is one of those that are used, each by a name that ends with its digest.
pub(crate) fn is_used(digest: &Digest, used: &BTreeSet<String>) -> bool {
    let digest = digest.to_string();
    used.iter().any(|id| id.rsplit('@').next() == Some(digest.as_str()))
}
