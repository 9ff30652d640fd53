//! Removes a folder that a guest may have filled.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::entry;

/// How many folders are open at once. What lies deeper is moved up first.
const DEPTH: usize = 64;

/// Why a folder is still there, or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Something is mounted in it. What lies there is not the pod's, so it is left alone.
    #[error("{} is a mount point: unmount it, then its pod can be removed", path.display())]
    Mounted {
        /// The mount point.
        path: PathBuf,
    },
    /// The host refused.
    #[error("remove {}", path.display())]
    Remove {
        /// What could not be removed.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Removes the folder at `path` and all that is in it; it is no error if there is none. Blocking.
///
/// No symbolic link is followed below `path`, nothing that is mounted there is entered, and neither the stack nor the
/// number of open descriptors grows with what there is. May be called again after an error.
pub fn remove(path: &Path) -> Result<(), RemoveError> {
    let error = |errno: Errno| RemoveError::Remove { path: path.to_owned(), source: errno.into() };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(error(Errno::INVAL));
    };
    let name = CString::new(name.as_bytes()).map_err(|_| error(Errno::INVAL))?;
    let parent = match entry::open(parent) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(error)?,
    };
    Removal { path, parent, levels: Vec::new(), moved: 0 }.run(name)
}

/// A folder that is being emptied.
struct Level {
    folder: OwnedFd,
    /// Its name in the level above.
    name: CString,
    /// Folders that were seen in it and are next.
    found: Vec<CString>,
    /// Something in it was removed since it was last read from its start.
    progress: bool,
}

struct Removal<'a> {
    path: &'a Path,
    parent: OwnedFd,
    /// From the folder to be removed down to the one being emptied.
    levels: Vec<Level>,
    /// Folders that were moved up, to name the next one.
    moved: u64,
}

impl Removal<'_> {
    fn run(mut self, name: CString) -> Result<(), RemoveError> {
        self.descend(name)?;
        while !self.levels.is_empty() {
            match self.next()? {
                Some(name) if self.levels.len() < DEPTH => self.descend(name)?,
                Some(name) => self.raise(&name)?,
                None => self.ascend()?,
            }
        }
        Ok(())
    }

    /// Goes into the folder `name` of the lowest level.
    fn descend(&mut self, name: CString) -> Result<(), RemoveError> {
        match entry::enter(self.lowest(), &name) {
            Ok(folder) => {
                self.levels.push(Level { folder, name, found: Vec::new(), progress: false });
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            // Not a folder after all: a link is removed, not followed.
            Err(Errno::LOOP | Errno::NOTDIR) => self.unlink(&name, AtFlags::empty()),
            Err(errno) => Err(self.error(Some(&name), errno)),
        }
    }

    /// The next folder in the lowest level. All else that is read on the way is removed.
    fn next(&mut self) -> Result<Option<CString>, RemoveError> {
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            if let Some(name) = level.found.pop() {
                return Ok(Some(name));
            }
            if !level.read().map_err(|(name, errno)| self.error(name.as_deref(), errno))? {
                return Ok(None);
            }
        }
    }

    /// Removes the lowest level, which is empty.
    fn ascend(&mut self) -> Result<(), RemoveError> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        match rustix::fs::unlinkat(self.lowest(), &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                if let Some(above) = self.levels.last_mut() {
                    above.progress = true;
                }
                Ok(())
            }
            // Some file systems leave names out of a list while others of it are removed; or it was moved up here.
            Err(Errno::NOTEMPTY) if level.progress => {
                let rewound = rustix::fs::seek(&level.folder, SeekFrom::Start(0));
                rewound.map_err(|errno| self.error(Some(&level.name), errno))?;
                self.levels.push(Level { progress: false, ..level });
                Ok(())
            }
            Err(errno) => Err(self.error(Some(&level.name), errno)),
        }
    }

    /// Moves a folder that lies too deep into the uppermost level.
    fn raise(&mut self, name: &CStr) -> Result<(), RemoveError> {
        loop {
            let new = CString::new(format!("moved-{}", self.moved)).unwrap_or_default();
            self.moved += 1;
            let Some(top) = self.levels.first() else { return Ok(()) };
            match rustix::fs::renameat(self.lowest(), name, &top.folder, &new) {
                Ok(()) | Err(Errno::NOENT) => break,
                // The guest has used that name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(errno) => return Err(self.error(Some(name), errno)),
            }
        }
        if let Some(top) = self.levels.first_mut() {
            top.progress = true;
        }
        Ok(())
    }

    fn unlink(&mut self, name: &CStr, flags: AtFlags) -> Result<(), RemoveError> {
        match rustix::fs::unlinkat(self.lowest(), name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error(Some(name), errno)),
        }
    }

    /// Where the next name is looked up.
    fn lowest(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(self.parent.as_fd(), |level| level.folder.as_fd())
    }

    fn error(&self, name: Option<&CStr>, errno: Errno) -> RemoveError {
        let below = self.levels.iter().skip(1).map(|level| level.name.as_c_str());
        let mut path = self.path.to_owned();
        path.extend(below.map(part));
        // Without levels the name is the folder's own.
        if let Some(name) = name.filter(|_| !self.levels.is_empty()) {
            path.push(part(name));
        }
        match errno {
            // Of a folder by openat2(2), of a file by unlinkat(2).
            Errno::XDEV | Errno::BUSY => RemoveError::Mounted { path },
            errno => RemoveError::Remove { path, source: errno.into() },
        }
    }
}

fn part(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

impl Level {
    /// Reads on: files are removed, folders noted. False at the end.
    fn read(&mut self) -> Result<bool, (Option<CString>, Errno)> {
        let mut buffer = entry::buffer();
        let mut entries = RawDir::new(&self.folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| (None, errno))?;
            let name = entry.file_name();
            if !entry::is_dots(name) {
                let of = |errno| (Some(name.to_owned()), errno);
                if entry::is_folder(&self.folder, &entry).map_err(of)? {
                    self.found.push(name.to_owned());
                } else {
                    rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()).map_err(of)?;
                    self.progress = true;
                }
            }
            if entries.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    /// Makes `depth` folders, each in the one before, which no path names any more.
    fn nest(root: &Path, depth: usize) {
        let mut folder = entry::open(root).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&folder, c"d", 0o755.into()).unwrap();
            folder = entry::enter(&folder, c"d").unwrap();
        }
        rustix::fs::mkdirat(&folder, c"last", 0o755.into()).unwrap();
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("pod");
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        for number in 0..2000 {
            fs::write(folder.join(format!("a/{number}")), "x").unwrap();
            fs::create_dir(folder.join(format!("a/b/d{number}"))).unwrap();
        }
        let _socket = UnixListener::bind(folder.join("socket")).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.exists() && root.path().exists());
        remove(&folder).unwrap();
        remove(&folder.join("none/at/all")).unwrap();
    }

    #[test]
    fn the_depth_is_the_guests_and_the_stack_is_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("pod");
        fs::create_dir(&folder).unwrap();
        // The names that moved folders get are taken.
        fs::create_dir_all(folder.join("moved-0/full")).unwrap();
        fs::write(folder.join("moved-1"), "").unwrap();
        nest(&folder, 3_000);
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn(move || remove(&folder).unwrap()).unwrap().join().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (folder, kept) = (root.path().join("pod"), root.path().join("kept"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, folder.join("folder")).unwrap();
        symlink(kept.join("file"), folder.join("file")).unwrap();
        symlink("/nowhere", folder.join("dangling")).unwrap();
        remove(&folder).unwrap();
        symlink(&kept, &folder).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.is_symlink());
        assert!(kept.join("file").exists());
    }

    /// Where the mounts are made by the test below, in namespaces that end with this process.
    const MOUNTED: &str = "NODULE_TEST_MOUNTED";

    #[test]
    fn what_is_mounted_is_left_alone_and_named() {
        let root = tempfile::tempdir().unwrap();
        for name in ["pod/deep/folder", "pod/other", "kept"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("kept/file"), "x").unwrap();
        let mounts = r#"mount --bind "$1/kept" "$1/pod/deep/folder" && exec "$0" --ignored --exact remove::tests::inside"#;
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", mounts])
            .arg(std::env::current_exe().unwrap())
            .arg(root.path())
            .env(MOUNTED, root.path())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(root.path().join("kept/file").exists());
        // Unmounted now, it can go.
        remove(&root.path().join("pod")).unwrap();
    }

    #[test]
    #[ignore = "run by the test above, in a mount namespace of its own"]
    fn inside() {
        let root = PathBuf::from(std::env::var_os(MOUNTED).unwrap());
        for pod in [root.join("pod"), root.join("pod/deep/folder")] {
            let error = remove(&pod).unwrap_err();
            let mount = root.join("pod/deep/folder");
            assert_eq!(
                error.to_string(),
                format!(
                    "{} is a mount point: unmount it, then its pod can be removed",
                    mount.display()
                )
            );
        }
        assert!(root.join("kept/file").exists());
    }
}
