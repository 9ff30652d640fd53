//! The files of one log, by the descriptor of their folder: no path is looked up, no link is followed.
//!
//! Who writes has nothing but the descriptor. Who reads takes the folder for hostile: what a confined process left there
//! may be a link, a pipe, a million files, or a file with a hole of exabytes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};

/// The most entries of a folder that are looked at. A log has a handful of files, a folder a handful of logs.
const ENTRIES: usize = 1 << 16;

/// A pipe in a file's place must not hold up whoever opens it.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A log's files: `<name>`, which is written, and `<name>.<time>`, which were.
pub(crate) struct Files {
    pub(crate) folder: OwnedFd,
    name: OsString,
}

impl Files {
    pub(crate) fn new(folder: OwnedFd, name: &OsStr) -> Self {
        Self { folder, name: name.to_owned() }
    }

    /// Of the log at `path`. Fails with `NotFound` where its folder is not there.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, folder(path), flags, Mode::empty())?;
        Ok(Self::new(folder, path.file_name().unwrap_or_default()))
    }

    /// The name of the file that is written.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Opens the file that is written, to write on.
    pub(crate) fn append(&self) -> io::Result<File> {
        let flags = FILE | OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        regular(rustix::fs::openat(&self.folder, &self.name, flags, Mode::from(0o640))?)
    }

    /// Opens one of the files, to read it.
    pub(crate) fn open(&self, name: &OsStr) -> io::Result<File> {
        let flags = FILE | OFlags::RDONLY;
        regular(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?)
    }

    /// The files that were written before, oldest first.
    pub(crate) fn rotated(&self) -> io::Result<Vec<OsString>> {
        let prefix = self.prefix();
        let mut names = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let folder = rustix::fs::openat(
            &self.folder,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut entries = RawDir::new(folder, &mut buffer);
        let mut seen = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_rotated(name, &prefix) {
                names.push(name.to_owned());
            }
            seen += 1;
            if seen > ENTRIES {
                let message = format!("there are more than {ENTRIES} files in the log's folder");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Gives the file that is written another name: one that sorts after all that are there, even when the clock was set
    /// back. The kubelet's pattern `<name>.<date>-<time>`, made finer: a container may fill several files in a second.
    pub(crate) fn rotate(&self, now: Timestamp) -> io::Result<()> {
        let mut next = self.prefix();
        next.push(now.strftime("%Y%m%d-%H%M%S.%9f").to_string());
        if let Some(newest) = self.rotated()?.pop().filter(|newest| *newest >= next) {
            next = newest;
            next.push("1");
        }
        Ok(rustix::fs::renameat(&self.folder, &self.name, &self.folder, &next)?)
    }

    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    fn prefix(&self) -> OsString {
        let mut prefix = self.name.clone();
        prefix.push(".");
        prefix
    }
}

/// Something that is not there is an answer, not an error.
pub(crate) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folder that a log lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
        return Ok(file.into());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"))
}

fn is_rotated(name: &OsStr, prefix: &OsStr) -> bool {
    let stamp = name.as_bytes().strip_prefix(prefix.as_bytes());
    stamp.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_sort_by_age_even_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let files = Files::of(&path).unwrap();
        for (content, second) in [10, 11, 11, 5, 12].into_iter().enumerate() {
            fs::write(&path, content.to_string()).unwrap();
            files.rotate(Timestamp::from_second(second).unwrap()).unwrap();
        }
        fs::write(folder.path().join("0.log.tmp"), "").unwrap();
        fs::write(folder.path().join("10.log.19700101-000000"), "").unwrap();

        let names = files.rotated().unwrap();
        assert_eq!(names[0], "0.log.19700101-000010.000000000");
        let read = |name: &OsString| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(names.iter().map(read).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let files = Files::of(&path).unwrap();
        let refused = |what: &str| {
            assert!(files.open(files.name()).is_err(), "{what} was opened");
            assert!(files.append().is_err(), "{what} was opened to write");
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        };
        let secret = folder.path().join("secret");
        fs::write(&secret, "x").unwrap();
        symlink(&secret, &path).unwrap();
        refused("a link");
        symlink(folder.path().join("none"), &path).unwrap();
        refused("a dangling link");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
        refused("a pipe");
        fs::create_dir(&path).unwrap();
        refused("a folder");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        refused("a socket");
        assert_eq!(fs::read_to_string(secret).unwrap(), "x");
    }

    #[test]
    fn a_link_in_the_folders_place_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        assert!(Files::of(&root.path().join("real/0.log")).is_ok());
        assert!(Files::of(&root.path().join("link/0.log")).is_err());
    }

    #[test]
    fn a_folder_with_too_many_files_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(&path, "").unwrap();
        for number in 0..=ENTRIES {
            fs::hard_link(&path, folder.path().join(number.to_string()))
                .or_else(|_| fs::write(folder.path().join(number.to_string()), ""))
                .unwrap();
        }
        let error = Files::of(&path).unwrap().rotated().unwrap_err();
        assert!(error.to_string().contains("more than 65536 files"), "{error}");
    }
}
