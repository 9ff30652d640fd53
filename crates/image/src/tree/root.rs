//! A folder that nothing done here leaves: every path is resolved by the kernel inside of it (openat2(2)).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::fs::{
    chmodat, fchmod, futimens, linkat, mkdirat, openat, openat2, readlinkat, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::name::{Name, is_too_deep};

/// Everybody may do everything: who reaches the tree is decided above it, in a folder that is the agent's alone, and by
/// how it is mounted. A guest is the only user of its files, whoever made the image.
const FOLDER: Mode = Mode::from_raw_mode(0o777);
const FILE: Mode = Mode::from_raw_mode(0o666);
const PROGRAM: Mode = Mode::from_raw_mode(0o777);
/// A file that is a blob of the store, too.
pub(super) const READABLE: Mode = Mode::from_raw_mode(0o444);

/// So many links are followed on the way to one file, as by the kernel (path_resolution(7)).
const LINKS: u8 = 40;

/// A folder that is held open.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

/// A regular file that is to be made.
pub(super) struct New<'n> {
    pub(super) size: u64,
    pub(super) is_program: bool,
    /// Seconds since 1970.
    pub(super) modified: u64,
    pub(super) content: &'n mut dyn Read,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens a file for reading; links lead nowhere but into the folder. Gives its path without any, too.
    pub(crate) fn file(&self, path: &str) -> io::Result<(File, PathBuf)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(self.resolve(path.as_bytes(), flags, inside())?);
        match file.metadata()?.is_file() {
            true => real(file.as_fd()).map(|path| (file, path)),
            false => Err(Errno::ISDIR.into()),
        }
    }

    /// Gives the folder itself the mode of all folders.
    pub(super) fn open_to_all(&self) -> io::Result<()> {
        Ok(fchmod(&self.0, FOLDER)?)
    }

    /// Makes a folder; one that is there is kept.
    pub(super) fn make_folder(&self, name: &Name) -> io::Result<()> {
        let Some((parent, last)) = name.split() else { return Ok(()) };
        let parent = self.parent(&parent)?;
        if kind(&parent, last)? != Some(FileType::Directory) {
            remove(parent.as_fd(), last)?;
            make_folder(&parent, last)?;
        }
        Ok(())
    }

    /// Makes a file in the place of what is there; the bytes that were read of its content.
    pub(super) fn make_file(&self, name: &Name, file: &mut New<'_>) -> io::Result<u64> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let made = self.replace(name, |parent, last| {
            openat(parent, last, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        })?;
        let mut made = File::from(made);
        let count = io::copy(&mut (&mut *file.content).take(file.size), &mut made)?;
        fchmod(&made, if file.is_program { PROGRAM } else { FILE })?;
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let modified = Timespec { tv_sec: i64::try_from(file.modified).unwrap_or(0), tv_nsec: 0 };
        futimens(&made, &Timestamps { last_access: omit, last_modification: modified })?;
        Ok(count)
    }

    pub(super) fn make_symlink(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        self.replace(name, |parent, last| symlinkat(target, parent, last))
    }

    /// Makes another name of a file that is in the folder.
    pub(super) fn make_link(&self, name: &Name, target: &Name) -> io::Result<()> {
        let (folder, from) = target.split().ok_or(Errno::ISDIR)?;
        let folder = self.resolve(&folder.path(), OFlags::PATH | OFlags::DIRECTORY, inside())?;
        match kind(&folder, from)? {
            None => return Err(Errno::NOENT.into()),
            Some(FileType::Directory) => return Err(Errno::ISDIR.into()),
            Some(_) if name == target => return Ok(()),
            Some(_) => {}
        }
        self.replace(name, |parent, last| linkat(&folder, from, parent, last, AtFlags::empty()))
    }

    /// Makes a name of a file of the store, which has the same file system; where that has no hard links, a copy.
    pub(super) fn adopt(&self, name: &Name, file: &Path) -> io::Result<()> {
        let (parent, last) = name.split().ok_or(Errno::ISDIR)?;
        let parent = self.parent(&parent)?;
        match linkat(CWD, file, &parent, last, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let copy = openat(&parent, last, flags, Mode::RUSR | Mode::WUSR)?;
        io::copy(&mut File::open(file)?, &mut File::from(copy.try_clone()?))?;
        Ok(fchmod(&copy, READABLE)?)
    }

    /// Removes what has this name, if anything.
    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        let Some((parent, last)) = name.split() else { return Ok(()) };
        match self.resolve(&parent.path(), OFlags::PATH | OFlags::DIRECTORY, inside()) {
            Ok(parent) => remove(parent.as_fd(), last),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes all that is in a folder, if there is one of this name.
    pub(super) fn clear(&self, name: &Name) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.resolve(&name.path(), flags, inside()) {
            Ok(folder) => clear(folder.as_fd()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn replace<T>(
        &self,
        name: &Name,
        make: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let (parent, last) = name.split().ok_or(Errno::ISDIR)?;
        let parent = self.parent(&parent)?;
        remove(parent.as_fd(), last)?;
        Ok(make(parent.as_fd(), last)?)
    }

    /// Opens the folder of this name, and makes it where it is missing; also where a link leads that has led nowhere yet (as
    /// container runtimes do).
    fn parent(&self, name: &Name) -> io::Result<OwnedFd> {
        self.follow(name, LINKS)
    }

    fn follow(&self, name: &Name, links: u8) -> io::Result<OwnedFd> {
        match self.folder(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (above, last) = name.split().ok_or(Errno::NOENT)?;
        let above = self.follow(&above, links)?;
        if kind(&above, last)? == Some(FileType::Symlink) {
            let left = links.checked_sub(1).ok_or(Errno::LOOP)?;
            return self.follow(&self.target(&above, last)?, left);
        }
        make_folder(&above, last)?;
        self.folder(name)
    }

    /// Where a link in `folder` leads, as if this were the root of all.
    fn target(&self, folder: &OwnedFd, link: &[u8]) -> io::Result<Name> {
        let target = readlinkat(folder, link, Vec::new())?;
        let (own, root) = (real(folder.as_fd())?, real(self.0.as_fd())?);
        let from = own.strip_prefix(&root).map_err(io::Error::other)?;
        let name = Name::led(from.as_os_str().as_bytes(), target.as_bytes());
        name.ok_or_else(|| Errno::NAMETOOLONG.into())
    }

    fn folder(&self, name: &Name) -> io::Result<OwnedFd> {
        let (path, flags) = (name.path(), OFlags::PATH | OFlags::DIRECTORY);
        match self.resolve(&path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {}
            other => return other,
        }
        // A link may lead deeper than the name says.
        let folder = self.resolve(&path, flags, inside())?;
        let (own, root) = (real(folder.as_fd())?, real(self.0.as_fd())?);
        let below = own.strip_prefix(&root).map_err(io::Error::other)?;
        match is_too_deep(below.as_os_str().as_bytes()) {
            true => Err(Errno::NAMETOOLONG.into()),
            false => Ok(folder),
        }
    }

    fn resolve(&self, path: &[u8], flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
        Ok(openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how)?)
    }
}

/// As if the folder were the root of all.
fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

/// The path of an open file, without links.
fn real(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn make_folder(parent: &OwnedFd, last: &[u8]) -> io::Result<()> {
    mkdirat(parent, last, Mode::RWXU)?;
    // The process' umask has no say. Nobody else is here to put a link into its place.
    Ok(chmodat(parent, last, FOLDER, AtFlags::empty())?)
}

fn kind(parent: &OwnedFd, last: &[u8]) -> io::Result<Option<FileType>> {
    match statat(parent, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, or a folder and all in it. Recursion is bounded: no folder is deeper than names may be.
fn remove(parent: BorrowedFd<'_>, last: &[u8]) -> io::Result<()> {
    match unlinkat(parent, last, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            clear(openat(parent, last, flags, Mode::empty())?.as_fd())?;
            Ok(unlinkat(parent, last, AtFlags::REMOVEDIR)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn clear(folder: BorrowedFd<'_>) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            remove(folder, name)?;
        }
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
