//! The guest's files: what of the host's it sees.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nodule_sandbox_proto::{Access, Mount};
use thiserror::Error;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::stage::{StageError, stage};

/// Why a mount could not be given to the guest.
#[derive(Debug, Error)]
pub(crate) enum FilesError {
    /// The host's path is not there, or not for this process.
    #[error("mount {} at {guest}", host.display())]
    Look {
        /// Where it should be on the host.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
        /// Why not.
        source: io::Error,
    },
    /// A mount that is a file.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The folder cannot be opened.
    #[error("mount {} at {guest}", host.display())]
    Open {
        /// Where it is on the host.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
        /// Why not.
        source: wasmtime::Error,
    },
}

/// A guest's mounts, all of them folders by now.
pub(crate) struct Files {
    folders: Vec<Mount>,
}

impl Files {
    /// Looks at what there is, and makes folders for those that are files, as [`stage`] does. `state` is the state
    /// folder. Called before there is another thread.
    pub(crate) fn new(mounts: &[Mount], state: &Path) -> Result<Self, FilesError> {
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for mount in mounts {
            let kind = fs::metadata(&mount.host).map_err(|source| FilesError::Look {
                host: mount.host.clone(),
                guest: mount.guest.clone(),
                source,
            })?;
            if kind.is_dir() { &mut folders } else { &mut files }.push(mount.clone());
        }
        let staged = stage(&files, &folders, state)?;
        folders.extend(staged);
        Ok(Self { folders })
    }

    /// Opens every folder and gives it to the guest. What it may not change is refused by the host, not by its own
    /// manners.
    pub(crate) fn give(&self, wasi: &mut WasiCtxBuilder) -> Result<(), FilesError> {
        for Mount { host, guest, access } in &self.folders {
            let open =
                |source| FilesError::Open { host: host.clone(), guest: guest.clone(), source };
            wasi.preopened_dir(host, guest, permissions(*access)).map_err(open)?;
        }
        Ok(())
    }
}

fn permissions(access: Access) -> FsPerms {
    match access {
        Access::ReadOnly => FsPerms::ReadOnly,
        Access::ReadWrite => FsPerms::ReadWrite,
    }
}
