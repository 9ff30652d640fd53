use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::Error;
use crate::record::{Prefix, Tag};
use crate::rotated;
use crate::writer::Rotation;

/// Records gather up to this many bytes before they are written: enough to make the system call cheap, little
/// enough to be kept for every container.
const BATCH: usize = 32 << 10;

/// The file of a log, and the records that are about to be written to it.
pub(crate) struct Output {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Bytes in `file`.
    size: u64,
    /// `size` at which the file is full; later than `rotation.max_size` after a rotation that did not work.
    limit: u64,
    /// The file does not end with a newline: one must come before the next record.
    torn: bool,
    /// Records not written yet. Empty between two calls of [`Writer`](crate::Writer).
    batch: Vec<u8>,
}

impl Output {
    pub(crate) fn open(path: &Path, rotation: Rotation) -> Result<Self, Error> {
        let opened = || -> io::Result<_> {
            fs::create_dir_all(rotated::folder(path))?;
            let mut file = append_to(path)?;
            let size = file.seek(SeekFrom::End(0))?;
            let torn = size > 0 && last_byte(path)? != b'\n';
            Ok((file, size, torn))
        };
        let (file, size, torn) =
            opened().map_err(|source| Error::Open { path: path.to_owned(), source })?;
        let limit = rotation.max_size;
        Ok(Output { path: path.to_owned(), rotation, file, size, limit, torn, batch: Vec::new() })
    }

    /// Takes in one record. It is in the file after the next [`commit`](Self::commit).
    pub(crate) fn record(
        &mut self,
        prefix: &Prefix,
        tag: Tag,
        head: &[u8],
        tail: &[u8],
    ) -> Result<(), Error> {
        let length = prefix.length(head.len() + tail.len());
        let used = self.size + self.batch.len() as u64;
        if used > 0 && used + length as u64 > self.limit {
            self.commit()?;
            self.rotate();
        } else if self.batch.len() + length > BATCH {
            self.commit()?;
        }
        prefix.append(tag, head, tail, &mut self.batch);
        Ok(())
    }

    /// Writes what was taken in. After an error it is gone, but for what the file had room for: output that
    /// no disk takes must not gather in memory.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        let written = self.write_batch();
        self.batch.clear();
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(|source| Error::Sync { path: self.path.clone(), source })
    }

    fn write_batch(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.batch.insert(0, b'\n');
        }
        self.torn = true;
        self.file.write_all(&self.batch)?;
        self.torn = false;
        self.size += self.batch.len() as u64;
        Ok(())
    }

    /// Goes on in a new file. If that does not work the old one takes another `max_size`: a line is worth
    /// more than a limit.
    fn rotate(&mut self) {
        match self.renew() {
            Ok(()) => self.limit = self.rotation.max_size,
            Err(_) => self.limit = self.size.saturating_add(self.rotation.max_size),
        }
    }

    fn renew(&mut self) -> io::Result<()> {
        let full = rotated::next(&self.path, Timestamp::now())?;
        match fs::rename(&self.path, full) {
            // Moved before, but there was no new one; or somebody removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = append_to(&self.path)?;
        self.size = 0;
        self.torn = false;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut old = rotated::list(&self.path)?;
        let keep = self.rotation.max_files.max(2) as usize - 1;
        old.truncate(old.len().saturating_sub(keep));
        old.iter().try_for_each(fs::remove_file)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn last_byte(path: &Path) -> io::Result<u8> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    let [byte] = byte;
    Ok(byte)
}
