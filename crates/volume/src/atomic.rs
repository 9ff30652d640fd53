//! Files that change all at once: what a ConfigMap, a Secret or the downward API becomes in a volume.
//!
//! The layout is Kubernetes' (`k8s.io/kubernetes/pkg/volume/util`, `AtomicWriter`), which programs that watch for changes
//! know: the files lie in a folder `..<time>.<number>`, the link `..data` names it, and what a guest opens are links through
//! `..data`. A new content is a new folder, and `..data` is renamed over: a reader sees all of the old or all of the new.
//! Wherever the writer is killed, the next one begins from `..data` and removes what that does not name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::{Errno, Result as Kernel};

use crate::owner::{Group, own};
use crate::{beneath, entry, remove};

const DATA: &CStr = c"..data";
const NEXT: &CStr = c"..data_tmp";

/// The longest path of a file in a volume (`validatePayload`: `maxFileNameLength`, `maxPathLength`).
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4096;

/// A file's content and who may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// All of it.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Whose it is; none leaves it the agent's.
    pub user: Option<u32>,
}

/// The files of a volume by their paths in it.
pub type Files = BTreeMap<String, Content>;

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A path that no volume may hold.
    #[error(
        "invalid path: \"{path}\" must be relative, without \"..\", and must not start with \"..\""
    )]
    Path {
        /// The path.
        path: String,
    },
    /// The host refused.
    #[error("write {}", path.display())]
    Write {
        /// The volume, or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An older content could not be removed.
    #[error(transparent)]
    Remove(crate::RemoveError),
}

/// Makes the folder hold these files and no others. False if it does already. Blocking.
pub fn write(folder: &Path, files: &Files, group: Option<Group>) -> Result<bool, WriteError> {
    for path in files.keys() {
        check(path)?;
    }
    let error = |errno: Errno| WriteError::Write { path: folder.to_owned(), source: errno.into() };
    let root = entry::open_own(folder).map_err(error)?;
    let volume = Volume { path: folder, root, group };
    let current = volume.current().map_err(error)?;
    let kept = current.as_deref().filter(|name| volume.holds(name, files).unwrap_or(false));
    let fresh = match kept {
        Some(name) => name.to_owned(),
        None => volume.fill(files)?,
    };
    volume.link(files).map_err(error)?;
    volume.sweep(&fresh, files)?;
    Ok(kept.is_none())
}

/// Relative, without `..`, and not like a name that is the writer's own.
fn check(path: &str) -> Result<(), WriteError> {
    let parts = || path.split('/');
    let fits = path.len() <= LONGEST_PATH
        && !path.starts_with("..")
        && !path.contains('\0')
        && parts().all(|part| !matches!(part, "" | "." | "..") && part.len() <= LONGEST_NAME);
    if fits { Ok(()) } else { Err(WriteError::Path { path: path.to_owned() }) }
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

fn name(text: &str) -> Kernel<CString> {
    CString::new(text).map_err(|_| Errno::INVAL)
}

struct Volume<'a> {
    path: &'a Path,
    root: OwnedFd,
    group: Option<Group>,
}

impl Volume<'_> {
    /// The folder that `..data` names.
    fn current(&self) -> Kernel<Option<CString>> {
        match rustix::fs::readlinkat(&self.root, DATA, Vec::new()) {
            Ok(name) => Ok(Some(name)),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the folder `name` has these files, as they should be, and no others.
    fn holds(&self, name: &CStr, files: &Files) -> io::Result<bool> {
        let folder = entry::enter(&self.root, name)?;
        for (path, content) in files {
            if !is(&folder, path, content, self.group)? {
                return Ok(false);
            }
        }
        Ok(count(&folder)? == files.len())
    }

    /// Writes the files to a new folder, and makes it the current one.
    fn fill(&self, files: &Files) -> Result<CString, WriteError> {
        let of = |path: &str, source: io::Error| WriteError::Write {
            path: self.path.join(path),
            source,
        };
        let (name, folder) = self.begin().map_err(|errno| of("", errno.into()))?;
        for (path, content) in files {
            put(&folder, path, content, self.group).map_err(|source| of(path, source))?;
        }
        let switch = || -> Kernel<()> {
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755))?;
            match rustix::fs::unlinkat(&self.root, NEXT, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            rustix::fs::symlinkat(&name, &self.root, NEXT)?;
            rustix::fs::renameat(&self.root, NEXT, &self.root, DATA)
        };
        switch().map_err(|errno| of("", errno.into()))?;
        Ok(name)
    }

    /// A new folder that nothing names yet.
    fn begin(&self) -> Kernel<(CString, OwnedFd)> {
        let now = Timestamp::now();
        let time = now.to_zoned(TimeZone::UTC).strftime("..%Y_%m_%d_%H_%M_%S").to_string();
        let mut number = now.subsec_nanosecond().unsigned_abs();
        loop {
            let name = name(&format!("{time}.{number}"))?;
            match rustix::fs::mkdirat(&self.root, &name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => number = number.wrapping_add(1),
                made => {
                    made?;
                    let folder = entry::enter(&self.root, &name)?;
                    return Ok((name, folder));
                }
            }
        }
    }

    /// Makes the links that a guest opens.
    fn link(&self, files: &Files) -> Kernel<()> {
        let names: BTreeSet<&str> = files.keys().map(|path| first(path)).collect();
        for link in names {
            let (link, target) = (name(link)?, name(&format!("..data/{link}"))?);
            match rustix::fs::symlinkat(&target, &self.root, &link) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Removes links without a file, and every older folder.
    fn sweep(&self, current: &CStr, files: &Files) -> Result<(), WriteError> {
        let error =
            |errno: Errno| WriteError::Write { path: self.path.to_owned(), source: errno.into() };
        let wanted: BTreeSet<&[u8]> = files.keys().map(|path| first(path).as_bytes()).collect();
        for found in names(&self.root).map_err(error)? {
            let bytes = found.to_bytes();
            if found.as_c_str() == DATA || found.as_c_str() == current || wanted.contains(bytes) {
                continue;
            }
            if bytes.starts_with(b"..") && found.as_c_str() != NEXT {
                let path = self.path.join(found.to_string_lossy().as_ref());
                remove(&path).map_err(WriteError::Remove)?;
            } else {
                rustix::fs::unlinkat(&self.root, &found, AtFlags::empty()).map_err(error)?;
            }
        }
        Ok(())
    }
}

/// Whether the file has this content, mode and owner.
fn is(folder: &OwnedFd, path: &str, content: &Content, group: Option<Group>) -> io::Result<bool> {
    let file = match beneath::open(folder, path, OFlags::RDONLY | OFlags::NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        opened => File::from(opened?),
    };
    let found = rustix::fs::fstat(&file)?;
    let mode = group.map_or(content.mode, |group| group.file_mode(content.mode));
    let same = found.st_mode & 0o7777 == mode
        && content.user.is_none_or(|user| found.st_uid == user)
        && group.is_none_or(|group| found.st_gid == group.id);
    if !same || u64::try_from(found.st_size).ok() != Some(content.data.len() as u64) {
        return Ok(false);
    }
    let mut data = Vec::with_capacity(content.data.len());
    file.take(content.data.len() as u64 + 1).read_to_end(&mut data)?;
    Ok(data == content.data)
}

/// Writes one file and the folders that it lies in.
fn put(folder: &OwnedFd, path: &str, content: &Content, group: Option<Group>) -> io::Result<()> {
    let (folders, last) = path.rsplit_once('/').unwrap_or(("", path));
    let mut parent = folder.try_clone()?;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        let part = name(part)?;
        match rustix::fs::mkdirat(&parent, &part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        parent = entry::enter(&parent, &part)?;
        rustix::fs::fchmod(&parent, Mode::from_raw_mode(0o755))?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name(last)?, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(file);
    file.write_all(&content.data)?;
    own(&file, content.user, group)?;
    let mode = group.map_or(content.mode, |group| group.file_mode(content.mode));
    // Not by the creation: the process' umask would take bits away, and chown the set-id bits.
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
}

/// The entries of a folder.
pub(crate) fn names(folder: impl AsFd) -> Kernel<Vec<CString>> {
    let (mut names, mut buffer) = (Vec::new(), entry::buffer());
    // Another descriptor: reading moves it.
    let folder = rustix::fs::openat(folder, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = RawDir::new(&folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !entry::is_dots(entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// How many files there are in a folder of the writer's own.
fn count(folder: &OwnedFd) -> Kernel<usize> {
    let (mut files, mut folders) = (0, vec![folder.try_clone().map_err(|_| Errno::MFILE)?]);
    while let Some(folder) = folders.pop() {
        for name in names(&folder)? {
            match entry::enter(&folder, &name) {
                Ok(inner) => folders.push(inner),
                Err(Errno::NOTDIR | Errno::LOOP) => files += 1,
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let content = |data: &str| Content { data: data.into(), mode: 0o644, user: None };
        list.iter().map(|(path, data)| ((*path).to_owned(), content(data))).collect()
    }

    /// What a guest finds: names that do not begin with two dots, and what they lead to.
    fn seen(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names.retain(|name| !name.starts_with(".."));
        names
    }

    fn folders(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().flatten();
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).count()
    }

    #[test]
    fn files_appear_through_links_and_change_all_at_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        assert!(
            write(folder, &files(&[("a", "1"), ("deep/b", "2"), ("deep/c", "3")]), None).unwrap()
        );
        assert_eq!(seen(folder), ["a", "deep"]);
        assert_eq!(fs::read_link(folder.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(folder.join("deep/c")).unwrap(), "3");
        let first = fs::read_link(folder.join("..data")).unwrap();
        let old = File::open(folder.join("a")).unwrap();

        assert!(write(folder, &files(&[("a", "one"), ("new", "4")]), None).unwrap());
        assert_eq!(seen(folder), ["a", "new"]);
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "one");
        assert_ne!(fs::read_link(folder.join("..data")).unwrap(), first);
        assert_eq!(io::read_to_string(old).unwrap(), "1", "an open file stays what it was");
        assert_eq!(folders(folder), 1, "the old content is gone");
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let mut wanted = files(&[("a", "1"), ("deep/b", "2")]);
        assert!(write(folder, &wanted, None).unwrap());
        let first = fs::read_link(folder.join("..data")).unwrap();
        assert!(!write(folder, &wanted, None).unwrap());
        assert_eq!(fs::read_link(folder.join("..data")).unwrap(), first);
        wanted.get_mut("a").unwrap().mode = 0o600;
        assert!(write(folder, &wanted, None).unwrap(), "a mode is a part of it");
        wanted.remove("deep/b");
        assert!(write(folder, &wanted, None).unwrap(), "so is that there are no others");
        assert!(write(folder, &Files::new(), None).unwrap());
        assert!(seen(folder).is_empty());
    }

    #[test]
    fn modes_owners_and_groups_are_as_asked() {
        let root = tempfile::tempdir().unwrap();
        let mut wanted = files(&[("a", "1"), ("b", "1")]);
        wanted.get_mut("a").unwrap().mode = 0o400;
        wanted.get_mut("b").unwrap().mode = 0o600;
        let is_root = rustix::process::geteuid().is_root();
        let id = if is_root { 4242 } else { rustix::process::getegid().as_raw() };
        if is_root {
            wanted.get_mut("a").unwrap().user = Some(4343);
        }
        write(root.path(), &wanted, Some(Group { id })).unwrap();
        let found = |name: &str| fs::metadata(root.path().join(name)).unwrap();
        assert_eq!(found("a").mode() & 0o7777, 0o440, "the group may read");
        assert_eq!(found("b").mode() & 0o7777, 0o640);
        assert_eq!(found("a").gid(), id);
        assert!(!is_root || found("a").uid() == 4343);
        assert!(!write(root.path(), &wanted, Some(Group { id })).unwrap(), "and are so already");
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for path in
            ["", "/etc/passwd", "a/../b", "../a", "..data", "..x/a", "a//b", "a/", "./a", "a/."]
        {
            let refused = write(root.path(), &files(&[(path, "x")]), None);
            assert!(matches!(refused, Err(WriteError::Path { .. })), "{path:?}");
        }
        assert!(write(root.path(), &files(&[(&"n".repeat(256), "x")]), None).is_err());
        assert!(write(root.path(), &files(&[("a..b/..c", "x")]), None).is_ok());
    }

    #[test]
    fn whatever_a_writer_that_was_killed_left_the_next_one_ends_with_the_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        write(folder, &files(&[("a", "old"), ("b", "old")]), None).unwrap();
        // It was in the middle of a new folder; then before the rename; then before the links.
        fs::create_dir(folder.join("..2020_01_01_00_00_00.1")).unwrap();
        fs::write(folder.join("..2020_01_01_00_00_00.1/a"), "half").unwrap();
        symlink("..2020_01_01_00_00_00.1", folder.join("..data_tmp")).unwrap();
        fs::remove_file(folder.join("b")).unwrap();
        symlink("..data/gone", folder.join("gone")).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "old");

        assert!(!write(folder, &files(&[("a", "old"), ("b", "old")]), None).unwrap());
        assert_eq!((seen(folder), folders(folder)), (vec!["a".to_owned(), "b".to_owned()], 1));
        symlink("nowhere", folder.join("..data_tmp")).unwrap();
        assert!(write(folder, &files(&[("a", "new")]), None).unwrap());
        assert_eq!((seen(folder), folders(folder)), (vec!["a".to_owned()], 1));
        // What `..data` names was lost.
        fs::remove_file(folder.join("..data")).unwrap();
        assert!(write(folder, &files(&[("a", "new")]), None).unwrap());
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "new");
        assert_eq!(folders(folder), 1);
    }

    #[test]
    fn a_link_in_the_place_of_the_volume_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        symlink("other", root.path().join("volume")).unwrap();
        assert!(write(&root.path().join("volume"), &files(&[("a", "1")]), None).is_err());
        let mode = fs::metadata(root.path().join("other")).unwrap().permissions().mode();
        assert!(mode != 0 && fs::read_dir(root.path().join("other")).unwrap().next().is_none());
    }
}
