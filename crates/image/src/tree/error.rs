//! Why a layer is refused, in words for who made the image.

use std::io;

/// What is wrong with a layer. Names of files are shown as far as they can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    #[error("it is cut off")]
    Truncated,
    #[error("it is no tar archive: {0}")]
    NotTar(&'static str),
    #[error("its content has digest {got}, the configuration says {expected}")]
    WrongDiff { expected: String, got: String },
    #[error("{name:?} leads out of the image")]
    Escape { name: String },
    #[error("{name:?} is no name of a file: {why}")]
    Name { name: String, why: &'static str },
    #[error("another file has the name {name:?}, or the name of a folder on the way to it")]
    Twice { name: String },
    #[error("{name:?} hides {hidden:?}, which is no name of a file")]
    Whiteout { name: String, hidden: String },
    #[error("{name:?} is a hard link to {target:?}, which is not in the image")]
    HardLink { name: String, target: String },
    #[error("{name:?} is {what}, which a layer must not hold")]
    Kind { name: String, what: &'static str },
    #[error("{name:?} cannot be made: {source}")]
    File { name: String, source: io::Error },
    #[error("the image has more than {limit} bytes of files")]
    TooLarge { limit: u64 },
    #[error("the image has more than {limit} files")]
    TooMany { limit: u64 },
    #[error("a decompression bomb: {input} bytes became more than {output}")]
    Bomb { input: u64, output: u64 },
    #[error(
        "its zstd window, which whoever reads it keeps in memory, has {} MiB, more than the limit of {} MiB: compress it with zstd up to level 20, with --long=25 at most, or with gzip",
        asked.div_ceil(1 << 20), limit >> 20
    )]
    Window { asked: u64, limit: u64 },
    /// Nothing is wrong with the layer.
    #[error("{name:?}: {source}")]
    Disk { name: String, source: io::Error },
}

impl LayerError {
    /// Tells a full or failing disk from a file that cannot be.
    pub(super) fn file(name: &[u8], source: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let name = shown(name);
        let is_disk = matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem);
        // EIO has no kind of its own; EMFILE, ENFILE and ENOMEM are this process's trouble.
        let is_node = matches!(source.raw_os_error(), Some(5 | 12 | 23 | 24));
        match is_disk || is_node {
            true => Self::Disk { name, source },
            false => Self::File { name, source },
        }
    }
}

impl LayerError {
    /// What is wrong with the disk, if it is that.
    pub(super) fn disk(self) -> Result<io::Error, Self> {
        if let Self::Disk { source, .. } = self { Ok(source) } else { Err(self) }
    }
}

/// A name for a message: no more of it than can be read.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}
