//! Names of images: which there are, since when, and that one is taken away.

use jiff::Timestamp;

use super::{Pointer, Store, StoreError, read_json};
use crate::digest::Digest;
use crate::partial;
use crate::reference::Reference;

/// A name, and what it means here.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) reference: Reference,
    pub(crate) digest: Digest,
    /// When it was last pulled or taken up.
    pub(crate) at: Timestamp,
}

impl Named {
    /// Whether people use it: a name by digest alone comes with each pull.
    pub(crate) fn has_tag(&self) -> bool {
        self.reference.digest().is_none()
    }
}

impl Store {
    /// All names, in order.
    pub(crate) fn all_named(&self) -> Vec<Named> {
        let mut names = self.names();
        names.sort();
        let named = |(name, digest): (String, Digest)| {
            let reference = Reference::parse(&name).ok()?;
            let path = match (reference.digest(), reference.tag()) {
                (Some(digest), _) => self.digest_path(&reference, digest),
                (None, tag) => self.tag_path(&reference, tag?),
            };
            let at = read_json::<Pointer>(&path)?.at;
            Some(Named { reference, digest, at })
        };
        names.into_iter().filter_map(named).collect()
    }

    /// Takes one tag away; the image stays.
    pub(crate) fn remove_tag(&self, name: &Reference) -> Result<(), StoreError> {
        match name.tag() {
            Some(tag) => partial::remove(&self.tag_path(name, tag)),
            None => Ok(()),
        }
    }
}
