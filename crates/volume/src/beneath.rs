//! Paths in a volume whose content is a guest's: they never lead out of it (openat2(2), `RESOLVE_BENEATH`).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::entry;

/// Why something in a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    /// The path leads out of the volume, or through what only the kernel may link to.
    #[error("{path} leads out of its volume")]
    Out {
        /// The path in the volume.
        path: String,
    },
    /// It is no regular file.
    #[error("{path} is not a file")]
    NoFile {
        /// The path in the volume.
        path: String,
    },
    /// It is more than is read.
    #[error("{path} is larger than {limit} bytes")]
    Large {
        /// The path in the volume.
        path: String,
        /// The most that is read.
        limit: u64,
    },
    /// The host refused.
    #[error("open {path}")]
    Open {
        /// The path in the volume.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// Opens what is at `path` in `folder`. Links are followed as long as they stay within it.
pub(crate) fn open(
    folder: impl AsFd,
    path: impl Arg,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The text of the file `path` in the volume at `folder`; none if there is none. Never waits for a guest: what is no regular
/// file is refused.
pub fn read(folder: &Path, path: &str, limit: u64) -> Result<Option<String>, BeneathError> {
    let error = |source: io::Error| BeneathError::Open { path: path.to_owned(), source };
    let folder = entry::open(folder).map_err(|errno| error(errno.into()))?;
    let file = match open(folder, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::XDEV | Errno::LOOP) => return Err(BeneathError::Out { path: path.to_owned() }),
        Err(errno) => return Err(error(errno.into())),
    };
    if !file.metadata().map_err(error)?.is_file() {
        return Err(BeneathError::NoFile { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text).map_err(error)?;
    if text.len() as u64 > limit {
        return Err(BeneathError::Large { path: path.to_owned(), limit });
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_read_and_nothing_outside_is() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("deep")).unwrap();
        fs::write(root.path().join("secret"), "no").unwrap();
        fs::write(volume.join("deep/env"), "A=b").unwrap();
        symlink("deep/env", volume.join("inside")).unwrap();
        symlink("../secret", volume.join("outside")).unwrap();
        symlink(root.path().join("secret"), volume.join("absolute")).unwrap();
        symlink("/proc/self/environ", volume.join("proc")).unwrap();
        let read = |path| super::read(&volume, path, 3);
        assert_eq!(read("deep/env").unwrap().as_deref(), Some("A=b"));
        assert_eq!(read("inside").unwrap().as_deref(), Some("A=b"));
        assert_eq!(read("none").unwrap(), None);
        for path in ["outside", "absolute", "proc", "../secret", "/etc/passwd"] {
            assert!(matches!(read(path), Err(BeneathError::Out { .. })), "{path}");
        }
        assert!(matches!(read("deep"), Err(BeneathError::NoFile { .. })));
        fs::write(volume.join("large"), "four").unwrap();
        assert!(matches!(read("large"), Err(BeneathError::Large { limit: 3, .. })));
    }
}
