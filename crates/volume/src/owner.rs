//! Whose a volume's files are: a pod's `fsGroup` (KEP-695).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result as Kernel};

use crate::{atomic, entry};

/// How deep folders are handed to a group.
const DEPTH: usize = 256;

/// The group that may use a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// `fsGroup`.
    pub id: u32,
}

impl Group {
    /// What a file that nobody writes to becomes (`roMask`).
    pub(crate) fn file_mode(self, mode: u32) -> u32 {
        mode | 0o440
    }
}

/// When a volume that exists is handed to its group (`fsGroupChangePolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Each time that it is set up.
    Always,
    /// Unless its topmost folder is the group's already.
    OnRootMismatch,
}

/// Why a volume could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The host refused.
    #[error("applyFSGroup failed for {}", path.display())]
    Apply {
        /// The volume.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Folders in folders without end.
    #[error(
        "applyFSGroup failed for {}: it has folders more than {DEPTH} deep: use fsGroupChangePolicy OnRootMismatch, or no fsGroup",
        path.display()
    )]
    Deep {
        /// The volume.
        path: PathBuf,
    },
}

/// Gives an open file to a user and a group.
pub(crate) fn own(file: impl AsFd, user: Option<u32>, group: Option<Group>) -> Kernel<()> {
    let (user, group) = (user.map(Uid::from_raw), group.map(|group| Gid::from_raw(group.id)));
    match (user, group) {
        (None, None) => Ok(()),
        _ => rustix::fs::fchown(file, user, group),
    }
}

/// Hands a volume and all that is in it to the group, which may then write to it. Blocking.
///
/// What lies there is guests' work: links are handed over themselves, and nothing that is mounted below is entered.
pub fn hand_over(path: &Path, group: Group, change: Change) -> Result<(), OwnError> {
    let error = |errno: Errno| OwnError::Apply { path: path.to_owned(), source: errno.into() };
    let root = entry::open(path).map_err(error)?;
    if change == Change::OnRootMismatch && fits(&root, group).map_err(error)? {
        return Ok(());
    }
    // The topmost folder last: one that was broken off is begun again.
    let mut folders = vec![(root.try_clone().map_err(|_| error(Errno::MFILE))?, 0)];
    while let Some((folder, depth)) = folders.pop() {
        for name in atomic::names(&folder).map_err(error)? {
            match entry::enter(&folder, &name) {
                Ok(_) if depth >= DEPTH => return Err(OwnError::Deep { path: path.to_owned() }),
                Ok(inner) => {
                    give_folder(&inner, group).map_err(error)?;
                    folders.push((inner, depth + 1));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    give_file(&folder, &name, group).map_err(error)?;
                }
                Err(Errno::NOENT | Errno::XDEV) => {}
                Err(errno) => return Err(error(errno)),
            }
        }
    }
    give_folder(&root, group).map_err(error)
}

fn fits(root: &OwnedFd, group: Group) -> Kernel<bool> {
    const WANTED: u32 = 0o2770;
    let found = rustix::fs::fstat(root)?;
    Ok(found.st_gid == group.id && found.st_mode & WANTED == WANTED)
}

/// What is made in it is the group's, too.
fn give_folder(folder: &OwnedFd, group: Group) -> Kernel<()> {
    own(folder, None, Some(group))?;
    let mode = rustix::fs::fstat(folder)?.st_mode & 0o7777;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(mode | 0o2770))
}

/// A file that may be another at any moment: what is opened is what is changed.
fn give_file(folder: &OwnedFd, name: &CStr, group: Group) -> Kernel<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    rustix::fs::chownat(&file, c"", None, Some(Gid::from_raw(group.id)), AtFlags::EMPTY_PATH)?;
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode((found.st_mode & 0o7777) | 0o660);
    rustix::fs::chmod(crate::beneath::descriptor(&file), mode)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// Any other if this is root, else its own.
    fn group() -> Group {
        let own = rustix::process::getegid().as_raw();
        Group { id: if rustix::process::geteuid().is_root() { 4242 } else { own } }
    }

    #[test]
    fn a_volume_and_all_in_it_becomes_the_groups_but_nothing_that_it_links_to() {
        let root = tempfile::tempdir().unwrap();
        let (volume, kept) = (root.path().join("v"), root.path().join("kept"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/file"), "x").unwrap();
        fs::write(&kept, "x").unwrap();
        symlink(&kept, volume.join("link")).unwrap();
        let before = fs::metadata(&kept).unwrap();
        hand_over(&volume, group(), Change::Always).unwrap();
        for path in ["", "a", "a/b"] {
            let found = fs::metadata(volume.join(path)).unwrap();
            assert_eq!((found.gid(), found.mode() & 0o2770), (group().id, 0o2770), "{path}");
        }
        let file = fs::metadata(volume.join("a/b/file")).unwrap();
        assert_eq!((file.gid(), file.mode() & 0o660), (group().id, 0o660));
        let after = fs::metadata(&kept).unwrap();
        assert_eq!((after.gid(), after.mode()), (before.gid(), before.mode()));
    }

    #[test]
    fn a_root_that_is_the_groups_is_enough_where_the_policy_says_so() {
        let root = tempfile::tempdir().unwrap();
        hand_over(root.path(), group(), Change::Always).unwrap();
        fs::write(root.path().join("later"), "x").unwrap();
        let mode = || fs::metadata(root.path().join("later")).unwrap().mode() & 0o060;
        hand_over(root.path(), group(), Change::OnRootMismatch).unwrap();
        assert_eq!(mode(), 0o040);
        hand_over(root.path(), group(), Change::Always).unwrap();
        assert_eq!(mode(), 0o060);
    }

    #[test]
    fn the_depth_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = entry::open(root.path()).unwrap();
        for _ in 0..DEPTH + 2 {
            rustix::fs::mkdirat(&folder, c"d", 0o755.into()).unwrap();
            folder = entry::enter(&folder, c"d").unwrap();
        }
        let refused = hand_over(root.path(), group(), Change::Always);
        assert!(matches!(refused, Err(OwnError::Deep { .. })), "{refused:?}");
        crate::remove(&root.path().join("d")).unwrap();
    }
}
