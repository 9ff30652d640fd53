//! Removes images because somebody says so: by name, or all that nobody uses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use crate::image::Record;
use crate::reference::Reference;
use crate::stock::{LookUpError, Stocked, is_used, stocked};
use crate::store::{StoreError, blocking};
use crate::{Images, Inner};

/// Which unused images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Those with a tag, too.
    pub tagged: bool,
    /// Those that were pulled or taken up within this time stay.
    pub youngest: Duration,
}

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The image has other names, and stays.
    Name,
    /// The image is gone.
    Image(Box<Stocked>),
}

/// An image that was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error(transparent)]
    LookUp(#[from] LookUpError),
    /// A pod would miss it.
    #[error("image {name} is used by a pod: remove the pod first")]
    Used {
        /// As it was given.
        name: String,
    },
    /// Somebody pulls it or is about to run it.
    #[error("image {name} is taken up by a pod or a pull just now: try again")]
    Held {
        /// As it was given.
        name: String,
    },
    /// The store is at fault: what was begun the next collection ends.
    #[error("remove image {name}")]
    Store {
        /// As it was given.
        name: String,
        /// Why not.
        source: StoreError,
    },
}

impl Images {
    /// Removes a name, and with its last tag the image, unless it is of those that pods use (`used`, each `…@sha256:…`) or
    /// somebody has it in hand. A digest means the image with all its names.
    ///
    /// # Errors
    /// [`RemoveError`] says why it is still there.
    pub async fn remove(&self, name: &str, used: BTreeSet<String>) -> Result<Removed, RemoveError> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        let removed = spawn_blocking(move || inner.remove(&name, &used)).await;
        removed.expect("file work does not panic and the runtime waits for it")
    }

    /// Removes images that no pod uses, and gives back which.
    ///
    /// # Errors
    /// When the store cannot be read or changed: what was not removed is found by the next call.
    pub async fn prune(
        &self,
        prune: Prune,
        used: BTreeSet<String>,
    ) -> Result<Vec<Stocked>, StoreError> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.prune(prune, &used)).await
    }
}

impl Inner {
    fn remove(&self, name: &str, used: &BTreeSet<String>) -> Result<Removed, RemoveError> {
        let failed = |source| RemoveError::Store { name: name.to_owned(), source };
        let record = self.look_up(name)?;
        let named = self.store.all_named();
        let tag = Reference::parse(name)
            .ok()
            .filter(|tag| tag.digest().is_none() && !name.starts_with("sha256:"));
        let mut own = named.iter().filter(|other| other.digest == record.digest);
        if let Some(tag) = tag
            && own.any(|other| other.has_tag() && other.reference != tag)
        {
            self.store.remove_tag(&tag).map_err(failed)?;
            return Ok(Removed::Name);
        }
        if is_used(&record.digest, used) {
            return Err(RemoveError::Used { name: name.to_owned() });
        }
        let gone = stocked(&record, &named);
        if !self.drop_image(&record).map_err(failed)? {
            return Err(RemoveError::Held { name: name.to_owned() });
        }
        self.sweep().map_err(failed)?;
        Ok(Removed::Image(Box::new(gone)))
    }

    fn prune(&self, prune: Prune, used: &BTreeSet<String>) -> Result<Vec<Stocked>, StoreError> {
        let (named, now) = (self.store.all_named(), Timestamp::now());
        let is_old = |image: &Stocked| {
            let age = image.pulled.map(|pulled| now.duration_since(pulled));
            age.is_none_or(|age| Duration::try_from(age).unwrap_or_default() >= prune.youngest)
        };
        let mut gone = Vec::new();
        let is_unused = |record: &Record| !is_used(&record.digest, used);
        for record in self.store.records().into_iter().filter(is_unused) {
            let image = stocked(&record, &named);
            let goes = is_old(&image) && (prune.tagged || image.tags.is_empty());
            if goes && self.drop_image(&record)? {
                gone.push(image);
            }
        }
        self.sweep()?;
        Ok(gone)
    }
}
