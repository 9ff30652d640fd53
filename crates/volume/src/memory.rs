//! What must not be on a disk: Secrets' files, and volumes that ask for memory.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{RemoveError, atomic, entry, remove};

/// What this agent's mounts are called in mountinfo: no other is ever unmounted.
const NAME: &str = "nodule-volume";

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: i64 = 0x0102_1994;

const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Why there is no place in memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A folder could not be made or looked at.
    #[error("make {}", path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not mount or unmount it.
    #[error("mount or unmount {}", path.display())]
    Mount {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The one folder of a node that holds all pods' files that belong in memory: `<folder>/<uid>/<volume>`.
///
/// One for all of them: every mount is copied to each sandbox that starts.
#[derive(Debug, Clone)]
pub struct Memory {
    folder: PathBuf,
    /// It is: nothing of it reaches a disk but by swapping.
    is_memory: bool,
}

impl Memory {
    /// Takes the folder as it is if it lies on a tmpfs, as `/run` does; else mounts one there, where this process may. Only
    /// its owner enters it. Where neither is possible, it stays on disk and says so.
    pub fn open(folder: &Path, may_mount: bool) -> Result<Self, MemoryError> {
        let made = || -> io::Result<bool> {
            make(folder)?;
            is_memory(folder)
        };
        let error = |source| MemoryError::Make { path: folder.to_owned(), source };
        let mut is_memory = made().map_err(error)?;
        if !is_memory && may_mount {
            tmpfs(folder, "mode=0700")?;
            is_memory = true;
        }
        Ok(Self { folder: folder.to_owned(), is_memory })
    }

    /// Whether what lies there stays off the disk.
    pub fn is_memory(&self) -> bool {
        self.is_memory
    }

    /// Where a pod's files lie.
    pub fn of(&self, uid: &str) -> PathBuf {
        self.folder.join(uid)
    }

    /// Removes what pods left that nobody knows.
    pub fn sweep(&self, known: &HashSet<String>) -> Result<(), RemoveError> {
        let error = |errno: rustix::io::Errno| RemoveError::Remove {
            path: self.folder.clone(),
            source: errno.into(),
        };
        let folder = entry::open(&self.folder).map_err(error)?;
        for name in atomic::names(&folder).map_err(error)? {
            let name = name.to_string_lossy();
            if !known.contains(name.as_ref()) {
                remove(&self.of(&name))?;
            }
        }
        Ok(())
    }
}

/// A folder that only its owner enters.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(rustix::fs::chmodat(CWD, folder, 0o700.into(), rustix::fs::AtFlags::empty())?)
}

fn is_memory(folder: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(folder)?.f_type == TMPFS)
}

/// Mounts a tmpfs, never swapped out where the kernel has that (Linux 6.3).
fn tmpfs(folder: &Path, options: &str) -> Result<(), MemoryError> {
    let with = |options: &str| {
        let options = std::ffi::CString::new(options).unwrap_or_default();
        mount(NAME, folder, c"tmpfs", INERT, Some(options.as_c_str()))
    };
    let mounted = with(&format!("{options},noswap")).or_else(|_| with(options));
    mounted.map_err(|errno| MemoryError::Mount { path: folder.to_owned(), source: errno.into() })
}

/// A tmpfs of `size` bytes at most on `folder`, which exists; nothing is done if there is one already.
pub(crate) fn mount_on(folder: &Path, size: Option<u64>) -> Result<(), MemoryError> {
    let error = |source| MemoryError::Make { path: folder.to_owned(), source };
    if is_memory(folder).map_err(error)? {
        return Ok(());
    }
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    tmpfs(folder, &format!("mode=0777{size}"))
}

/// Unmounts every volume in memory below `folder`. It is no error if there are none.
pub fn unmount_below(folder: &Path) -> Result<(), MemoryError> {
    let path = Path::new("/proc/self/mountinfo");
    let table =
        fs::read(path).map_err(|source| MemoryError::Make { path: path.to_owned(), source })?;
    let table = String::from_utf8_lossy(&table).into_owned();
    // The last that was mounted first: one may lie on another.
    for point in table.lines().rev().filter_map(own_mount) {
        if point.starts_with(folder) {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            unmount(&point, flags)
                .map_err(|errno| MemoryError::Mount { path: point, source: errno.into() })?;
        }
    }
    Ok(())
}

/// The mount point of a line of mountinfo (proc_pid_mountinfo(5)) that is one of this agent's mounts.
fn own_mount(line: &str) -> Option<PathBuf> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut kind = rest.split(' ');
    let own = kind.next() == Some("tmpfs") && kind.next() == Some(NAME);
    own.then(|| fields.split(' ').nth(4).map(plain))?
}

/// A path whose spaces and the like are written as octal numbers.
fn plain(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut parts = text.split('\\');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let letter = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match letter {
            Some(letter) => {
                out.push(char::from(letter));
                out.push_str(part.get(3..).unwrap_or_default());
            }
            None => out.extend(["\\", part]),
        }
    }
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_own_mounts_are_found_by_their_name() {
        let line = |kind: &str, source: &str| {
            format!("36 35 0:43 / /pods/a\\040b rw,nosuid shared:1 - {kind} {source} rw,size=4k")
        };
        assert_eq!(own_mount(&line("tmpfs", NAME)), Some(PathBuf::from("/pods/a b")));
        assert_eq!(own_mount(&line("tmpfs", "tmpfs")), None);
        assert_eq!(own_mount(&line("ext4", NAME)), None);
        assert_eq!(own_mount("36 35 0:43"), None);
    }

    #[test]
    fn what_unknown_pods_left_is_swept_and_others_enter_nothing() {
        let root = tempfile::tempdir().unwrap();
        let memory = Memory::open(&root.path().join("m"), false).unwrap();
        let mode = fs::metadata(root.path().join("m")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        for uid in ["known", "gone"] {
            fs::create_dir_all(memory.of(uid).join("volume")).unwrap();
        }
        memory.sweep(&HashSet::from(["known".to_owned()])).unwrap();
        assert!(memory.of("known").exists() && !memory.of("gone").exists());
    }

    /// Where the test below runs itself again, in namespaces that end with that process.
    const INSIDE: &str = "NODULE_TEST_MEMORY";

    #[test]
    fn a_volume_in_memory_has_its_size_and_goes_without_a_trace() {
        let root = tempfile::tempdir().unwrap();
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "memory::tests::inside"])
            .env(INSIDE, root.path())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(fs::read_dir(root.path().join("pod")).unwrap().next().is_none());
    }

    #[test]
    #[ignore = "run by the test above, in a mount namespace of its own"]
    fn inside() {
        let root = PathBuf::from(std::env::var_os(INSIDE).unwrap());
        let folder = root.join("pod/a volume");
        fs::create_dir_all(&folder).unwrap();
        mount_on(&folder, Some(64 << 10)).unwrap();
        mount_on(&folder, Some(64 << 10)).unwrap();
        fs::write(folder.join("fits"), vec![0; 32 << 10]).unwrap();
        assert!(fs::write(folder.join("full"), vec![0; 128 << 10]).is_err());
        assert!(remove(&folder).is_err(), "it is mounted");
        unmount_below(&root.join("pod")).unwrap();
        unmount_below(&root.join("pod")).unwrap();
        remove(&folder).unwrap();
        let secrets = Memory::open(&root.join("secrets"), true).unwrap();
        assert!(secrets.is_memory());
        assert!(Memory::open(&root.join("secrets"), false).unwrap().is_memory());
        unmount_below(&root.join("secrets")).unwrap();
    }
}
