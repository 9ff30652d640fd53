use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;

use crate::error::Error;
use crate::files::{self, Files};
use crate::record::{Prefix, Tag};
use crate::writer::Rotation;

/// Records gather up to this many bytes before they are written: enough to make the system call cheap, little
/// enough to be kept for every container.
const BATCH: usize = 32 << 10;

/// The file of a log, and the records that are about to be written to it.
pub(crate) struct Output {
    files: Files,
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
    pub(crate) fn open(folder: OwnedFd, name: &OsStr, rotation: Rotation) -> Result<Self, Error> {
        let files = Files::new(folder, name);
        let opened = || -> io::Result<_> {
            let file = files.append()?;
            let size = file.metadata()?.len();
            let torn = size > 0 && last_byte(&files, size)? != b'\n';
            Ok((file, size, torn))
        };
        let (file, size, torn) =
            opened().map_err(|source| Error::Open { path: name.into(), source })?;
        let limit = rotation.max_size;
        Ok(Output { files, rotation, file, size, limit, torn, batch: Vec::new() })
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
        written.map_err(|source| Error::Write { path: self.files.name().into(), source })
    }

    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(|source| Error::Sync { path: self.files.name().into(), source })
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
        // Moved before, but there was no new one; or somebody removed it.
        files::present(self.files.rotate(Timestamp::now()))?;
        self.file = self.files.append()?;
        self.size = 0;
        self.torn = false;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut old = self.files.rotated()?;
        let keep = self.rotation.max_files.max(2) as usize - 1;
        old.truncate(old.len().saturating_sub(keep));
        old.iter().try_for_each(|name| self.files.remove(name))
    }
}

fn last_byte(files: &Files, size: u64) -> io::Result<u8> {
    let mut byte = [0];
    files.open(files.name())?.read_exact_at(&mut byte, size - 1)?;
    let [byte] = byte;
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Stream;

    #[test]
    fn a_full_disk_is_an_error_and_what_comes_later_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let open = crate::folder(&path).unwrap();
        let rotation = Rotation::default();
        let mut output = Output::open(open, OsStr::new("0.log"), rotation).unwrap();
        let full = File::options().append(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut output.file, full);
        let prefix = Prefix::new(Timestamp::UNIX_EPOCH, Stream::Stdout);

        output.record(&prefix, Tag::Full, b"lost", b"").unwrap();
        assert_eq!(output.commit().unwrap_err().to_string(), "write to the log 0.log");
        // Nothing gathers: the next call does not try the lost line again.
        output.commit().unwrap();
        output.file = disk;
        output.record(&prefix, Tag::Full, b"kept", b"").unwrap();
        output.commit().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "\n1970-01-01T00:00:00.000000000Z stdout F kept\n");
    }
}
