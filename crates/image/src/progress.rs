//! How far downloads are, for who waits for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::image::Blob;
use crate::manifest::{Descriptor, Manifest};
use crate::reference::Reference;
use crate::shared::Shared;
use crate::{Images, Inner};

/// A blob that is being downloaded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Download {
    /// The path of its repository in the registry.
    pub repository: String,
    /// `sha256:…` of the blob.
    pub digest: String,
    /// Bytes that it has, by its manifest.
    pub size: u64,
    /// Bytes of it that are here.
    pub done: u64,
}

/// Downloads that somebody is at, by the blob's digest: there is one for each at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay(Arc<Mutex<HashMap<Digest, (String, u64)>>>);

/// As long as this is kept, the download is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    all: UnderWay,
    digest: Digest,
}

impl UnderWay {
    pub(crate) fn begin(&self, repository: &str, blob: &Blob) -> Shown {
        self.all().insert(blob.digest.clone(), (repository.to_owned(), blob.size));
        Shown { all: self.clone(), digest: blob.digest.clone() }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (String, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.all.all().remove(&self.digest);
    }
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the image that are here.
    pub done: u64,
    /// Bytes that it has, by its manifest.
    pub size: u64,
}

/// What is needed for images that are being pulled, by their names.
#[derive(Default)]
pub(crate) struct Plans(Shared<Vec<Blob>>);

/// As long as this is kept, it is known what an image needs.
pub(crate) struct Plan(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Vec<Blob>>);

impl Plans {
    fn plan(&self, reference: &Reference, blobs: Vec<Blob>) -> Plan {
        Plan(self.0.join(&reference.to_string(), || blobs))
    }

    fn of(&self, reference: &Reference) -> Option<Arc<Vec<Blob>>> {
        self.0.get(&reference.to_string())
    }
}

impl Inner {
    /// Notes what an image needs. Of one that is too large for this node, the first part.
    pub(crate) fn plan(&self, reference: &Reference, manifest: &Manifest) -> Plan {
        let all = manifest.config.iter().chain(manifest.layers.iter().flatten());
        let blob =
            |one: &Descriptor| Some(Blob { digest: Digest::parse(&one.digest)?, size: one.size });
        let mut blobs: Vec<_> = all.filter_map(blob).take(self.config.limits.layers + 1).collect();
        // The same layer twice is downloaded once.
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        blobs.dedup_by(|a, b| a.digest == b.digest);
        self.plans.plan(reference, blobs)
    }

    /// Bytes of a blob that are here.
    fn done(&self, blob: &Blob) -> u64 {
        if self.store.has(&blob.digest, blob.size) {
            return blob.size;
        }
        let here = std::fs::metadata(self.store.partial(&blob.digest));
        here.map_or(0, |file| file.len().min(blob.size))
    }
}

impl Images {
    /// How far the pull of an image is; none if nobody pulls it, or it is not known yet what it needs.
    pub fn progress(&self, reference: &Reference) -> Option<Progress> {
        let blobs = self.0.plans.of(reference)?;
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
        let done = sum(&mut blobs.iter().map(|blob| self.0.done(blob)));
        Some(Progress { done, size: sum(&mut blobs.iter().map(|blob| blob.size)) })
    }

    /// The downloads that are under way, in the order of their digests.
    pub fn downloads(&self) -> Vec<Download> {
        let all = self.0.under_way.all().clone();
        let download = |(digest, (repository, size)): (Digest, (String, u64))| {
            let blob = Blob { digest, size };
            let done = self.0.done(&blob);
            Download { repository, digest: blob.digest.to_string(), size, done }
        };
        let mut downloads: Vec<_> = all.into_iter().map(download).collect();
        downloads.sort_by(|a, b| a.digest.cmp(&b.digest));
        downloads
    }
}
