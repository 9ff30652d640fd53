use std::io;
use std::path::PathBuf;

/// What can not be done with a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log could not be opened.
    #[error("open the log {}", path.display())]
    Open {
        /// The log; its name alone where it was opened by its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The log could not be read.
    #[error("read the log {}", path.display())]
    Read {
        /// The log; its name alone where it was opened by its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Output could not be written, and is lost. Later output may be written again.
    #[error("write to the log {}", path.display())]
    Write {
        /// The log; its name alone where it was opened by its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The log was written, but the disk did not confirm it.
    #[error("sync the log {}", path.display())]
    Sync {
        /// The log; its name alone where it was opened by its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
