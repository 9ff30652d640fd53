//! What a folder holds, by descriptors.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDirEntry, ResolveFlags};
use rustix::io::Result;
use rustix::path::Arg;

/// What one `getdents64` may fill, in bytes: some hundred names.
pub(crate) const BUFFER: usize = 4 << 10;

/// Room for the names of a folder.
pub(crate) fn buffer() -> [MaybeUninit<u8>; BUFFER] {
    [MaybeUninit::uninit(); BUFFER]
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder by a path that is the node's own: its parts may be links.
pub(crate) fn open(path: impl Arg) -> Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a folder by a path of which only the last part may be another's work: a link there is refused.
pub(crate) fn open_own(path: impl Arg) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, FOLDER, Mode::empty())
}

/// Opens the folder `name` in `parent`. `LOOP` or `NOTDIR` if it is a link, `XDEV` if something is mounted there: bind
/// mounts of the same file system too, which no device number tells (openat2(2)).
pub(crate) fn enter(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(parent, name, FOLDER, Mode::empty(), resolve)
}

/// Opens the folder that `folder` lies in now.
pub(crate) fn leave(folder: impl AsFd) -> Result<OwnedFd> {
    rustix::fs::openat(folder, c"..", FOLDER, Mode::empty())
}

/// Whether an entry is `.` or `..`.
pub(crate) fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Whether an entry is a folder. Some file systems leave that out of their lists.
pub(crate) fn is_folder(folder: impl AsFd, entry: &RawDirEntry<'_>) -> Result<bool> {
    match entry.file_type() {
        FileType::Directory => Ok(true),
        FileType::Unknown => {
            let found = rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
        }
        FileType::RegularFile
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice => Ok(false),
    }
}
