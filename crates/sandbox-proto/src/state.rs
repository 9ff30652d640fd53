//! The three files in a container's state folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Container, Exit, Started, VERSION};

/// The name of the file that holds a [`Container`].
pub const CONTAINER: &str = "container.json";
/// The name of the file that holds a [`Started`].
pub const STARTED: &str = "started.json";
/// The name of the file that holds an [`Exit`].
pub const EXIT: &str = "exit.json";

/// A container's state folder. The agent makes it and writes `container.json`; the sandbox writes the other two.
///
/// A file is either whole or not there: each is written under another name and renamed, so that a kill at any moment
/// leaves no half of it. Only the exit is synced too: a crash of the machine ends every container, and then the other
/// two files name nothing any more, but what a container came to must be known after it. A sync takes milliseconds, the
/// start of a container less.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// The state in `folder`, which must exist before anything is written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What to run. The file's version is looked at before anything else of it, so that a file of another release is
    /// [`StateError::Version`] whatever its fields are.
    pub fn container(&self) -> Result<Container, StateError> {
        let path = self.folder.join(CONTAINER);
        let bytes =
            fs::read(&path).map_err(|source| StateError::Read { path: path.clone(), source })?;
        let Versioned { version } = parse(&path, &bytes)?;
        if version != VERSION {
            return Err(StateError::Version { path, found: version });
        }
        parse(&path, &bytes)
    }

    /// That the guest started; none if it has not.
    pub fn started(&self) -> Result<Option<Started>, StateError> {
        self.read(STARTED)
    }

    /// How the container ended; none if it has not, or if nobody could write it.
    pub fn exit(&self) -> Result<Option<Exit>, StateError> {
        self.read(EXIT)
    }

    /// Writes `container.json`: the agent, before the process is started.
    pub fn write_container(&self, container: &Container) -> Result<(), StateError> {
        self.write(CONTAINER, container, Sync::No)
    }

    /// Writes `started.json`: the sandbox, before the guest's first instruction.
    pub fn write_started(&self, started: &Started) -> Result<(), StateError> {
        self.write(STARTED, started, Sync::No)
    }

    /// Writes `exit.json`: the sandbox at the guest's end, or the agent for a sandbox that was killed.
    pub fn write_exit(&self, exit: &Exit) -> Result<(), StateError> {
        self.write(EXIT, exit, Sync::Yes)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Read { path, source }),
        }
    }

    fn write(&self, name: &str, value: &impl Serialize, sync: Sync) -> Result<(), StateError> {
        let path = self.folder.join(name);
        let bytes = serde_json::to_vec(value)
            .map_err(|source| StateError::Encode { path: path.clone(), source })?;
        self.replace(name, &bytes, sync).map_err(|source| StateError::Write { path, source })
    }

    /// Two writers of one name would share the temporary file; there is one writer of each.
    fn replace(&self, name: &str, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{name}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if sync == Sync::Yes {
            file.sync_all()?;
        }
        fs::rename(&temporary, self.folder.join(name))?;
        if sync == Sync::Yes {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// Whether a file must outlive a crash of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    No,
    Yes,
}

/// Any file that says its version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
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
    /// The file could not be written, synced or renamed.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
