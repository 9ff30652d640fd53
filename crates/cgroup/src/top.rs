//! The mounted file system: every file is opened here, and only inside of it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, FsWord, Mode, OFlags, ResolveFlags, XattrFlags, fgetxattr, fsetxattr,
    fstatfs, mkdirat, open, openat2, unlinkat,
};
use rustix::io::{Errno, write};

use crate::Error;

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2: FsWord = 0x6367_7270;

/// An extended attribute that tells the pods of this program from those of a kubelet, which have the same names.
const MARK: &str = "user.nodule.pod";

/// A mounted cgroup v2 file system. Paths are relative to it; one that leaves it, by a link, by `..` or by another mount,
/// is not found.
#[derive(Debug)]
pub(crate) struct Top {
    folder: OwnedFd,
    mount: PathBuf,
}

impl Top {
    pub(crate) fn open(mount: &Path) -> Result<Self, Error> {
        let not_mounted = || Error::NotMounted { mount: mount.to_owned() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(mount, flags, Mode::empty()).map_err(|_| not_mounted())?;
        let found = fstatfs(&folder).map_err(|_| not_mounted())?;
        if found.f_type != CGROUP2 {
            return Err(not_mounted());
        }
        Ok(Self { folder, mount: mount.to_owned() })
    }

    /// The path as other programs know it.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.mount.join(path)
    }

    pub(crate) fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    pub(crate) fn writer(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.at(path, OFlags::WRONLY)
    }

    pub(crate) fn reader(&self, path: &Path) -> Result<File, Errno> {
        self.at(path, OFlags::RDONLY).map(File::from)
    }

    pub(crate) fn read(&self, path: &Path) -> Result<String, Error> {
        let error = |source| Error::Read { path: self.absolute(path), source };
        let mut text = String::new();
        let mut file = self.reader(path).map_err(|cause| error(cause.into()))?;
        file.read_to_string(&mut text).map_err(error)?;
        Ok(text)
    }

    /// Writes in one call, as these files want it.
    pub(crate) fn write(&self, path: &Path, value: &str) -> Result<(), Errno> {
        write(self.writer(path)?, value.as_bytes()).map(drop)
    }

    /// Makes a cgroup, unless it is there.
    pub(crate) fn create(&self, path: &Path) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// Removes a cgroup that has no children.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    /// The cgroups right inside of this one.
    pub(crate) fn children(&self, path: &Path) -> Result<Vec<PathBuf>, Errno> {
        let mut children = Vec::new();
        for entry in Dir::new(self.folder(path)?)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                children.push(path.join(name));
            }
        }
        Ok(children)
    }

    pub(crate) fn mark(&self, path: &Path) -> Result<(), Errno> {
        fsetxattr(self.folder(path)?, MARK, b"1", XattrFlags::empty())
    }

    pub(crate) fn is_marked(&self, path: &Path) -> bool {
        let value = self.folder(path).and_then(|folder| fgetxattr(folder, MARK, &mut [0; 8]));
        value.is_ok()
    }

    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a std::ffi::OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.folder(path.parent().ok_or(Errno::INVAL)?)?, name))
    }

    fn at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.folder, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_not_cgroup_v2_and_the_remedy_is_said() {
        let folder = tempfile::tempdir().unwrap();
        for mount in [folder.path(), &folder.path().join("none")] {
            let error = Top::open(mount).unwrap_err();
            assert!(matches!(error, Error::NotMounted { .. }), "{error:?}");
            assert!(error.to_string().contains("systemd.unified_cgroup_hierarchy=1"), "{error}");
        }
    }
}
