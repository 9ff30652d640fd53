//! A blob while it is downloaded: hashed as it is written, taken up again where it was cut.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::flight::Turn;
use crate::store::StoreError;

/// The beginning of a blob, on disk. Blocking: to be used where blocking is allowed.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    len: u64,
    /// A write goes on when its caller is dropped: the turn ends after it.
    _turn: Turn,
}

impl Partial {
    /// Opens what there is and hashes it; what is longer than `size` is worth nothing.
    pub(crate) fn open(path: PathBuf, size: u64, turn: Turn) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::on("open", &path))?;
        let mut partial = Self { file, path, hasher: Hasher::new(), len: 0, _turn: turn };
        partial.hash_prefix()?;
        if partial.len > size { partial.restart() } else { Ok(partial) }
    }

    /// Bytes that are on disk.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Forgets what there is.
    pub(crate) fn restart(mut self) -> Result<Self, StoreError> {
        self.file.set_len(0).map_err(StoreError::on("truncate", &self.path))?;
        self.hasher = Hasher::new();
        self.len = 0;
        Ok(self)
    }

    /// What found no room is given up: the beginning of a blob must not be what keeps a disk full.
    pub(crate) fn write(mut self, piece: &[u8]) -> Result<Self, StoreError> {
        let written = self.file.write_all(piece);
        if let Err(error) = &written
            && matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        {
            remove(&self.path)?;
        }
        written.map_err(StoreError::on("write", &self.path))?;
        self.hasher.update(piece);
        self.len += piece.len() as u64;
        Ok(self)
    }

    /// The digest of what was written. The file stays for [`Store::adopt`](crate::store::Store::adopt).
    pub(crate) fn finish(self) -> (PathBuf, Digest) {
        (self.path, self.hasher.finish())
    }

    fn hash_prefix(&mut self) -> Result<(), StoreError> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.hasher.update(buffer.get(..count).unwrap_or_default());
                    self.len += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::on("read", &self.path)(error)),
            }
        }
    }
}

/// Removes bad content, or what is left of it.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::on("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Flights;

    #[tokio::test]
    async fn a_download_taken_up_again_has_the_digest_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        let open =
            async |size| Partial::open(path.clone(), size, Flights::default().turn("").await);
        drop(open(6).await.unwrap().write(b"abc").unwrap());
        let again = open(6).await.unwrap();
        assert_eq!(again.len(), 3);
        let (_, digest) = again.write(b"def").unwrap().finish();
        assert_eq!(digest, Digest::of(b"abcdef"));
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
    }

    #[tokio::test]
    async fn what_is_longer_than_the_blob_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, b"much too long").unwrap();
        let partial = Partial::open(path.clone(), 4, Flights::default().turn("").await).unwrap();
        assert_eq!(partial.len(), 0);
        partial.write(b"good").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"good");
    }
}
