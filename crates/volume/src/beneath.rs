//! Paths in a volume whose content is a guest's: they never lead out of it (openat2(2), `RESOLVE_BENEATH`).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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

/// A path to what a descriptor is of.
pub(crate) fn descriptor(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// Sees that there is something at `path` in the volume at `folder`. Blocking.
pub fn look(folder: &Path, path: &str) -> Result<(), BeneathError> {
    let error = |errno: Errno| refused(path, errno);
    let root = entry::open(folder).map_err(error)?;
    open(root, path, OFlags::PATH).map(drop).map_err(error)
}

fn refused(path: &str, errno: Errno) -> BeneathError {
    match errno {
        Errno::XDEV | Errno::LOOP => BeneathError::Out { path: path.to_owned() },
        errno => BeneathError::Open { path: path.to_owned(), source: errno.into() },
    }
}

/// Sees that there is something at `path` in the volume at `folder`: where there is nothing, folders are made, with the
/// permissions of the volume's own. Blocking.
pub fn make(folder: &Path, path: &str) -> Result<(), BeneathError> {
    let error = |errno: Errno| refused(path, errno);
    let root = entry::open(folder).map_err(error)?;
    match open(&root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        found => return found.map(drop).map_err(error),
    }
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root).map_err(error)?.st_mode & 0o7777);
    let mut parent = root;
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        parent = step(&parent, part, mode).map_err(error)?;
    }
    Ok(())
}

/// The folder `name` in `parent`, which is made if there is none.
fn step(parent: &OwnedFd, name: &str, mode: Mode) -> rustix::io::Result<OwnedFd> {
    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
    match open(parent, name, FOLDER) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(parent, name, mode)?;
            let made = open(parent, name, FOLDER | OFlags::NOFOLLOW)?;
            // The process' umask took bits away.
            rustix::fs::fchmod(&made, mode)?;
            Ok(made)
        }
        found => found,
    }
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

    #[test]
    fn folders_are_made_within_the_volume_alone() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("there")).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        symlink("../other", volume.join("out")).unwrap();
        symlink("there", volume.join("in")).unwrap();
        fs::write(volume.join("file"), "").unwrap();
        for path in ["a/b", "in/c", "file", "a/b", "there"] {
            make(&volume, path).unwrap();
        }
        assert!(volume.join("a/b").is_dir() && volume.join("there/c").is_dir());
        let mode = fs::metadata(volume.join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        for path in ["out/d", "../d", "out"] {
            assert!(matches!(make(&volume, path), Err(BeneathError::Out { .. })), "{path}");
        }
        assert!(make(&volume, "file/e").is_err());
        assert!(fs::read_dir(root.path().join("other")).unwrap().next().is_none());
    }
}
