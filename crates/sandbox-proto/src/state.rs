//! The files in a container's state folder.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, renameat, unlinkat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Container, Exit, Fate, Mount, Process, SPOKEN, Started, User, VERSION};

/// The name of the file that holds a [`Container`].
pub const CONTAINER: &str = "container.json";
/// The name of the file that holds a [`Process`].
pub const PROCESS: &str = "process.json";
/// The name of the file that holds a [`Fate`].
pub const FATE: &str = "fate.json";
/// The name of the file that holds a [`Started`], in [`OUT`].
pub const STARTED: &str = "started.json";
/// The name of the file that holds an [`Exit`]: the sandbox's in [`OUT`], the agent's beside it.
pub const EXIT: &str = "exit.json";
/// The folder that the sandbox's user owns.
pub const OUT: &str = "out";

/// The longest file that is read, in bytes: an environment may be long, and a guest that escaped may write anything.
const LONGEST: u64 = 16 << 20;

/// A container's state folder, by its path.
///
/// The agent makes it and writes `container.json`. The process writes `process.json` while it is still what the agent
/// is, so that it can be believed; what it says once it is the pod's user goes to `out/` (see [`Out`]). The zygote, its
/// parent, writes `fate.json`. Where the sandbox could not say how it ended, the agent writes `exit.json`.
///
/// A file is either whole or not there: each is written under another name and renamed, so that a kill at any moment
/// leaves no half of it. Only the exit is synced too: a crash of the machine ends every container, and then the other
/// files name nothing any more, but what a container came to must be known after it. A sync takes milliseconds, the
/// start of a container less.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// The state in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that the sandbox's user owns.
    pub fn out(&self) -> PathBuf {
        self.folder.join(OUT)
    }

    /// Makes the folder, and in it the one that belongs to `user`: the agent, before anything is written. What a try that
    /// came to nothing has left there goes.
    pub fn create(&self, user: Option<&User>) -> Result<(), StateError> {
        let out = self.out();
        let create = |source| StateError::Write { path: out.clone(), source };
        for name in [PROCESS, FATE, EXIT] {
            forget(&self.folder.join(name)).map_err(create)?;
        }
        for name in [STARTED, EXIT] {
            forget(&out.join(name)).map_err(create)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&out).map_err(create)?;
        user.map_or(Ok(()), |user| std::os::unix::fs::chown(&out, Some(user.uid), Some(user.gid)))
            .map_err(create)
    }

    /// Whether there is a `container.json`: from then on a process may have been started.
    pub fn has_container(&self) -> bool {
        self.folder.join(CONTAINER).exists()
    }

    /// What to run. The file's version is looked at before anything else of it, so that a file of another release is
    /// [`StateError::Version`] whatever its fields are.
    pub fn container(&self) -> Result<Container, StateError> {
        self.told(VERSION..=VERSION)
    }

    /// What the guest sees of the host's files: for an agent, which may be of another release than the one that wrote them.
    pub fn mounts(&self) -> Result<Vec<Mount>, StateError> {
        #[derive(Deserialize)]
        struct Mounts {
            mounts: Vec<Mount>,
        }
        self.told(SPOKEN).map(|Mounts { mounts }| mounts)
    }

    /// What is read of `container.json`, if it is of one of these versions.
    fn told<T: DeserializeOwned>(&self, versions: RangeInclusive<u32>) -> Result<T, StateError> {
        let path = self.folder.join(CONTAINER);
        let bytes =
            read(&path).map_err(|source| StateError::Read { path: path.clone(), source })?;
        let Versioned { version } = parse(&path, &bytes)?;
        if !versions.contains(&version) {
            return Err(StateError::Version { path, found: version });
        }
        parse(&path, &bytes)
    }

    /// The process; none if it did not begin yet.
    pub fn process(&self) -> Result<Option<Process>, StateError> {
        load(self.folder.join(PROCESS))
    }

    /// How the process ended, if it was the zygote's child and the zygote lived longer.
    pub fn fate(&self) -> Result<Option<Fate>, StateError> {
        load(self.folder.join(FATE))
    }

    /// That the guest started; none if it has not. The sandbox's word.
    pub fn started(&self) -> Result<Option<Started>, StateError> {
        load(self.out().join(STARTED))
    }

    /// How the container ended; none if it has not, or if nobody could write it. The agent's word, or the sandbox's.
    pub fn exit(&self) -> Result<Option<Exit>, StateError> {
        match load(self.folder.join(EXIT))? {
            Some(exit) => Ok(Some(exit)),
            None => Ok(load(self.out().join(EXIT))?.map(Exit::bounded)),
        }
    }

    /// Writes `container.json`: the agent, before the process is started.
    pub fn write_container(&self, container: &Container) -> Result<(), StateError> {
        self.write(CONTAINER, container, Sync::No)
    }

    /// Writes `process.json`: the process, before it gives up what it is.
    pub fn write_process(&self, process: &Process) -> Result<(), StateError> {
        self.write(PROCESS, process, Sync::No)
    }

    /// Writes `fate.json`: the zygote.
    pub fn write_fate(&self, fate: Fate) -> Result<(), StateError> {
        self.write(FATE, &fate, Sync::No)
    }

    /// Writes `exit.json` for a sandbox that did not: the agent.
    pub fn write_exit(&self, exit: &Exit) -> Result<(), StateError> {
        self.write(EXIT, exit, Sync::Yes)
    }

    fn write(&self, name: &str, value: &impl Serialize, sync: Sync) -> Result<(), StateError> {
        let path = self.folder.join(name);
        let folder =
            folder(&self.folder).map_err(|source| StateError::Write { path: path.clone(), source });
        replace(&folder?, path, name, value, sync)
    }
}

/// The sandbox's own folder, held open: once the process is confined, paths lead nowhere.
#[derive(Debug)]
pub struct Out {
    folder: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Out {
    /// Opens the folder of `state`.
    pub fn open(state: &State) -> Result<Self, StateError> {
        let path = state.out();
        let folder =
            folder(&path).map_err(|source| StateError::Read { path: path.clone(), source })?;
        Ok(Self { folder, path })
    }

    /// Goes on in the same folder at another path, by another mount of it, and lets go of the first.
    pub fn reopen(&mut self, path: &Path) -> Result<(), StateError> {
        self.folder =
            folder(path).map_err(|source| StateError::Read { path: path.to_owned(), source })?;
        Ok(())
    }

    /// The folder, for who says what may be reached.
    pub fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// Writes `started.json`: before the guest's first instruction.
    pub fn write_started(&self, started: &Started) -> Result<(), StateError> {
        replace(&self.folder, self.path.join(STARTED), STARTED, started, Sync::No)
    }

    /// Writes `exit.json`: at the guest's end.
    pub fn write_exit(&self, exit: &Exit) -> Result<(), StateError> {
        replace(&self.folder, self.path.join(EXIT), EXIT, exit, Sync::Yes)
    }
}

/// Whether a file must outlive a crash of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    No,
    Yes,
}

/// Removes a file that may not be there.
fn forget(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Two writers of one name would share the temporary file; there is one writer of each.
fn replace(
    folder: &OwnedFd,
    path: PathBuf,
    name: &str,
    value: &impl Serialize,
    sync: Sync,
) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|source| StateError::Encode { path: path.clone(), source })?;
    put(folder, name, &bytes, sync).map_err(|source| StateError::Write { path, source })
}

fn put(folder: &OwnedFd, name: &str, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let temporary = format!(".{name}.new");
    // What a kill left of an earlier write, or what a guest put there.
    match unlinkat(folder, &temporary, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, &temporary, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(bytes)?;
    if sync == Sync::Yes {
        file.sync_all()?;
    }
    renameat(folder, &temporary, folder, name)?;
    if sync == Sync::Yes {
        rustix::fs::fsync(folder)?;
    }
    Ok(())
}

/// Any file that says its version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn load<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>, StateError> {
    match read(&path) {
        Ok(bytes) => parse(&path, &bytes).map(Some),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Read { path, source }),
    }
}

/// Reads a file that somebody hostile may have put there: a link, a pipe, a file without an end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let kind = rustix::fs::FileType::from_raw_mode(fstat(&file)?.st_mode);
    let mut bytes = Vec::new();
    if kind != rustix::fs::FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"));
    }
    if file.take(LONGEST + 1).read_to_end(&mut bytes)? > usize::try_from(LONGEST).unwrap_or(0) {
        let message = format!("it is longer than {LONGEST} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(bytes)
        .map_err(|source| StateError::Parse { path: path.to_owned(), source })
}

/// What can go wrong with a state folder's files.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file could not be read. `container.json` must exist; the others may be missing.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file was written by another release.
    #[error("{} is of version {found}, this program knows version {VERSION}: it is of another release of nodule", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u32,
    },
    /// The value has no JSON form: a path that is not UTF-8.
    #[error("encode {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The file or folder could not be made, written, synced or renamed.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
