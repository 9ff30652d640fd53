//! Measures a folder that a guest writes to meanwhile.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use crate::entry;

/// The most entries that one walk looks at. Walking so many takes some seconds; a guest that makes new ones all the time
/// would keep it busy for ever.
const ENTRIES: u64 = 4_000_000;
/// The deepest that a walk goes: a level costs some bytes of memory.
const DEPTH: usize = 1 << 16;
/// Walks that are begun again because a folder was moved while the walk was below it.
const TRIES: u32 = 3;
/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// What a folder takes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Bytes in allocated blocks, the folders' own among them; a file with many names counts once. As `du` counts, and the
    /// kubelet.
    Bytes(u64),
    /// More than can be measured: over four million files, folders nested over 65,536 deep, or moved about so fast that no
    /// walk came to its end. Whoever has a limit is over it: else this were the way around every limit.
    Unbounded,
}

impl Usage {
    /// Whether it is more than `limit` bytes.
    pub fn exceeds(self, limit: u64) -> bool {
        match self {
            Self::Bytes(bytes) => bytes > limit,
            Self::Unbounded => true,
        }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(mut usages: I) -> Self {
        let bytes = usages.try_fold(0_u64, |sum, usage| match usage {
            Self::Bytes(bytes) => Some(sum.saturating_add(bytes)),
            Self::Unbounded => None,
        });
        bytes.map_or(Self::Unbounded, Self::Bytes)
    }
}

/// Measures the folder at `path`; nothing if there is none. Blocking.
///
/// Symbolic links are counted, not followed; what is mounted below is left out. One or two descriptors are open at a time,
/// and what is read and kept is bounded, whatever a guest does.
pub fn usage(path: &Path) -> io::Result<Usage> {
    measure(path, ENTRIES, DEPTH)
}

fn measure(path: &Path, entries: u64, depth: usize) -> io::Result<Usage> {
    for _ in 0..TRIES {
        let folder = match entry::open_own(path) {
            Err(Errno::NOENT) => return Ok(Usage::Bytes(0)),
            opened => opened?,
        };
        match Walk::new(folder, entries, depth)?.run()? {
            End::Whole(bytes) => return Ok(Usage::Bytes(bytes)),
            End::TooMuch => break,
            End::Moved => {}
        }
    }
    Ok(Usage::Unbounded)
}

/// How a walk ended.
enum End {
    Whole(u64),
    TooMuch,
    /// What it was below of lies elsewhere now.
    Moved,
}

/// What tells a file from all others.
type Id = (u64, u64);

/// A folder that the walk is below of, or in.
struct Level {
    id: Id,
    /// Where reading it goes on, in the file system's own terms (getdents64(2), `d_off`).
    next: u64,
}

struct Walk {
    /// The one that is being read: the last of `levels`.
    folder: OwnedFd,
    levels: Vec<Level>,
    bytes: u64,
    /// Files with several names that were counted.
    counted: HashSet<Id>,
    /// Entries that may still be looked at.
    entries: u64,
    depth: usize,
}

/// What came next in a folder.
enum Next {
    Folder(CString),
    Nothing,
    TooMuch,
}

impl Walk {
    fn new(folder: OwnedFd, entries: u64, depth: usize) -> rustix::io::Result<Self> {
        let found = rustix::fs::fstat(&folder)?;
        let levels = vec![Level { id: id(&found), next: 0 }];
        let bytes = size(&found);
        Ok(Self { folder, levels, bytes, counted: HashSet::new(), entries, depth })
    }

    fn run(mut self) -> rustix::io::Result<End> {
        loop {
            match self.next()? {
                Next::Folder(name) => self.descend(&name)?,
                Next::Nothing if self.levels.len() == 1 => return Ok(End::Whole(self.bytes)),
                Next::Nothing => {
                    if !self.ascend()? {
                        return Ok(End::Moved);
                    }
                }
                Next::TooMuch => return Ok(End::TooMuch),
            }
            if self.levels.len() > self.depth {
                return Ok(End::TooMuch);
            }
        }
    }

    /// Counts on in the folder, up to the next one in it.
    fn next(&mut self) -> rustix::io::Result<Next> {
        let Some(level) = self.levels.last_mut() else { return Ok(Next::Nothing) };
        let mut buffer = entry::buffer();
        rustix::fs::seek(&self.folder, SeekFrom::Start(level.next))?;
        let mut entries = RawDir::new(&self.folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // The folder was removed meanwhile.
                Err(Errno::NOENT) => return Ok(Next::Nothing),
                entry => entry?,
            };
            let name = entry.file_name();
            level.next = entry.next_entry_cookie();
            if entry::is_dots(name) {
                continue;
            }
            let Some(left) = self.entries.checked_sub(1) else { return Ok(Next::TooMuch) };
            self.entries = left;
            let Some(found) = look(&self.folder, name)? else { continue };
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                return Ok(Next::Folder(name.to_owned()));
            }
            if found.st_nlink < 2 || self.counted.insert(id(&found)) {
                self.bytes = self.bytes.saturating_add(size(&found));
            }
        }
        Ok(Next::Nothing)
    }

    fn descend(&mut self, name: &CStr) -> rustix::io::Result<()> {
        let folder = match entry::enter(&self.folder, name) {
            // Removed meanwhile, made into something else, or another file system's.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => return Ok(()),
            entered => entered?,
        };
        let found = rustix::fs::fstat(&folder)?;
        self.folder = folder;
        self.levels.push(Level { id: id(&found), next: 0 });
        self.bytes = self.bytes.saturating_add(size(&found));
        Ok(())
    }

    /// Goes back up. False if the folder does not lie where it was entered: then what `..` names is not looked at.
    fn ascend(&mut self) -> rustix::io::Result<bool> {
        self.levels.pop();
        let folder = match entry::leave(&self.folder) {
            Err(Errno::NOENT) => return Ok(false),
            left => left?,
        };
        let known = self.levels.last().map(|level| level.id);
        let same = known == Some(id(&rustix::fs::fstat(&folder)?));
        self.folder = folder;
        Ok(same)
    }
}

/// What an entry is; none if it was removed meanwhile.
fn look(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        found => found.map(Some),
    }
}

fn id(found: &Stat) -> Id {
    (found.st_dev, found.st_ino)
}

fn size(found: &Stat) -> u64 {
    u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn bytes(path: &Path) -> u64 {
        match usage(path).unwrap() {
            Usage::Bytes(bytes) => bytes,
            Usage::Unbounded => panic!("unbounded"),
        }
    }

    /// What the host's `du` says.
    fn du(path: &Path) -> u64 {
        let output = Command::new("du").args(["-s", "-B1"]).arg(path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_folder_takes_what_du_says() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("volume");
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        for number in 0..500 {
            fs::create_dir(folder.join(format!("a/{number}"))).unwrap();
            fs::write(folder.join(format!("a/{number}/file")), vec![1; number * 10]).unwrap();
        }
        fs::write(folder.join("a/b/large"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(folder.join("a/b/large"), folder.join("again")).unwrap();
        // A hole takes nothing.
        fs::File::create(folder.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        symlink("a/b/large", folder.join("link")).unwrap();
        symlink("..", folder.join("a/up")).unwrap();
        assert_eq!(bytes(&folder), du(&folder));
        assert!((1 << 20..16 << 20).contains(&bytes(&folder)), "{}", bytes(&folder));
        assert_eq!(bytes(&root.path().join("none")), 0);
    }

    #[test]
    fn a_link_in_the_folders_place_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        symlink("/usr", root.path().join("volume")).unwrap();
        assert!(usage(&root.path().join("volume")).is_err());
    }

    #[test]
    fn a_deep_folder_is_measured_and_one_that_is_too_deep_or_too_full_is_not() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = entry::open(root.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&folder, c"d", 0o755.into()).unwrap();
            folder = entry::enter(&folder, c"d").unwrap();
        }
        let each = size(&rustix::fs::fstat(&folder).unwrap());
        assert_eq!(measure(root.path(), 3000, 3001).unwrap(), Usage::Bytes(3001 * each));
        assert_eq!(measure(root.path(), 2999, 3001).unwrap(), Usage::Unbounded);
        assert_eq!(measure(root.path(), 3000, 3000).unwrap(), Usage::Unbounded);
        crate::remove(root.path()).unwrap();
    }

    #[test]
    fn a_walk_ends_while_a_guest_moves_folders_about_and_stays_in_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::write(root.path().join("outside"), vec![1; 8 << 20]).unwrap();
        // Three levels down; moved up while the walk is in it, `..` leads out of the volume.
        let (down, up) = (volume.join("one/two/moves"), volume.join("moves"));
        for number in 0..50 {
            fs::create_dir_all(down.join(number.to_string())).unwrap();
        }
        let stop = AtomicBool::new(false);
        let seen: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(&down, &up).unwrap();
                    fs::rename(&up, &down).unwrap();
                }
            });
            let seen = (0..1000).map(|_| usage(&volume)).collect();
            stop.store(true, Ordering::Relaxed);
            seen
        });
        for used in seen {
            let used = used.unwrap();
            let inside = matches!(used, Usage::Bytes(bytes) if bytes < 8 << 20);
            assert!(inside || used == Usage::Unbounded, "{used:?}");
        }
    }
}
