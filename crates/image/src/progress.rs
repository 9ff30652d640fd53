//! How far downloads are, for who waits for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Images;
use crate::digest::Digest;
use crate::image::Blob;

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

impl Images {
    /// The downloads that are under way, in the order of their digests.
    pub fn downloads(&self) -> Vec<Download> {
        let all = self.0.under_way.all().clone();
        let download = |(digest, (repository, size)): (Digest, (String, u64))| {
            let here = std::fs::metadata(self.0.store.partial(&digest));
            let done = here.map_or(0, |file| file.len().min(size));
            Download { repository, digest: digest.to_string(), size, done }
        };
        let mut downloads: Vec<_> = all.into_iter().map(download).collect();
        downloads.sort_by(|a, b| a.digest.cmp(&b.digest));
        downloads
    }
}
