//! The guest's files: the folders of the host that it sees.

use std::fs;
use std::io;
use std::path::PathBuf;

use nodule_sandbox_proto::{Access, Mount};
use thiserror::Error;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

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
    /// The host's path is neither a folder nor a file.
    #[error("mount {} at {guest}: it is a file, and only folders can be mounted", host.display())]
    Kind {
        /// Where it is on the host.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
    },
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

/// Opens every mount and gives it to the guest. What it may not change is refused by the host, not by its own manners.
pub(crate) fn give(mounts: &[Mount], wasi: &mut WasiCtxBuilder) -> Result<(), FilesError> {
    for Mount { host, guest, access } in mounts {
        let look = |source| FilesError::Look { host: host.clone(), guest: guest.clone(), source };
        if !fs::metadata(host).map_err(look)?.is_dir() {
            return Err(FilesError::Kind { host: host.clone(), guest: guest.clone() });
        }
        let open = |source| FilesError::Open { host: host.clone(), guest: guest.clone(), source };
        wasi.preopened_dir(host, guest, permissions(*access)).map_err(open)?;
    }
    Ok(())
}

fn permissions(access: Access) -> FsPerms {
    match access {
        Access::ReadOnly => FsPerms::ReadOnly,
        Access::ReadWrite => FsPerms::ReadWrite,
    }
}
