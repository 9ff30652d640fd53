//! The file that compiled code goes to.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that is removed again unless it is kept.
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl Output {
    /// Makes the file, which must not be there: others may be mapping the one that is.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, is_kept: false })
    }

    /// For the worker, which can write to it and do nothing else with it.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Keeps the file and returns its size. Nobody may change it from now on: its pages are read while it runs.
    pub(crate) fn keep(mut self) -> io::Result<u64> {
        self.file.set_permissions(Permissions::from_mode(0o400))?;
        let size = self.file.metadata()?.len();
        self.is_kept = true;
        Ok(size)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_kept {
            _ = fs::remove_file(&self.path);
        }
    }
}
