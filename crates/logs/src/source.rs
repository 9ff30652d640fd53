use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::AtFlags;

use crate::files::{Files, present};
use crate::tail;

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// A line longer than this is no record; it is left out instead of kept in memory.
const LINE_LIMIT: usize = 1 << 20;

/// What a crash of the machine may leave in place of lines is shorter. A hole in a file is endless, and reading it costs
/// the writer nothing.
const DROP_LIMIT: usize = 64 << 20;

/// How often a file may get another name while the next one is looked for. Then it is looked for again later.
const RENAMES: u32 = 100;

/// One file of a log that is being read. All here is blocking.
pub(crate) struct Source {
    file: File,
    /// Where the next read begins.
    position: u64,
    /// Where reading ends, however much there is.
    end: u64,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
    /// Bytes of that line that were left out.
    dropped: usize,
}

/// What tells a file from all others as long as it is open, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
}

impl Source {
    fn at(file: File, position: u64) -> Self {
        Source { file, position, end: u64::MAX, rest: Vec::new(), dropped: 0 }
    }

    /// Opens a log's newest file, at its last `lines`. While the log is being rotated there may be none of its name for a
    /// moment: then it is the one that was renamed last.
    pub(crate) fn newest(files: &Files, lines: Option<u64>) -> io::Result<Self> {
        let file = match present(files.open(files.name()))? {
            Some(file) => file,
            None => files.open(&files.rotated()?.pop().ok_or(io::ErrorKind::NotFound)?)?,
        };
        let position = lines.map_or(Ok(0), |lines| tail::start(&file, lines))?;
        Ok(Source::at(file, position))
    }

    /// Opens the file that the log went on in after `current`; the oldest if there is no current one.
    /// `None`: there is no such file yet. Called at the end of a file; once there is a next one nothing more is
    /// written to this.
    pub(crate) fn next(files: &Files, current: Option<&Source>) -> io::Result<Option<Self>> {
        if let Some(current) = current
            && Id::named(files, files.name())? == Some(current.id()?)
        {
            return Ok(None);
        }
        // Between listing and opening files may have got other names. What was opened is the next one only
        // if a list made afterwards says so too: it holds all that was renamed before.
        for _ in 0..RENAMES {
            let Some((next, id)) = Self::after(files, current)? else { return Ok(None) };
            let Some(file) = present(files.open(&next))? else { continue };
            let opened = Id::of(&file.metadata()?);
            if opened == id && Self::after(files, current)?.is_some_and(|(_, id)| id == opened) {
                return Ok(Some(Source::at(file, 0)));
            }
        }
        Ok(None)
    }

    fn after(files: &Files, current: Option<&Source>) -> io::Result<Option<(OsString, Id)>> {
        let mut found = Vec::new();
        for name in files.rotated()?.into_iter().chain([files.name().to_owned()]) {
            if let Some(id) = Id::named(files, &name)? {
                found.push((name, id));
            }
        }
        let mut found = found.into_iter();
        let Some(current) = current else { return Ok(found.next()) };
        // A removed file was the oldest. One that is neither removed nor listed is just being renamed.
        if current.file.metadata()?.nlink() == 0 {
            return Ok(found.next());
        }
        let id = current.id()?;
        found.find(|file| file.1 == id);
        Ok(found.next())
    }

    /// Leaves out what is written from now on.
    pub(crate) fn end_here(&mut self) -> io::Result<()> {
        self.end = self.file.metadata()?.len();
        Ok(())
    }

    /// Reads on: whole lines with their newlines, or nothing while a line is not whole. `None` at the end.
    pub(crate) fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(CHUNK);
        let mut chunk = vec![0; left.min(CHUNK)];
        let read = self.file.read_at(&mut chunk, self.position)?;
        chunk.truncate(read);
        self.position += read as u64;
        self.rest.append(&mut chunk);
        if read == 0 { Ok(None) } else { self.whole_lines().map(Some) }
    }

    fn whole_lines(&mut self) -> io::Result<Vec<u8>> {
        if let Some(newline) = self.rest.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.rest.split_off(newline + 1);
            self.dropped = 0;
            return Ok(std::mem::replace(&mut self.rest, rest));
        }
        if self.rest.len() > LINE_LIMIT {
            self.dropped += self.rest.len();
            self.rest.clear();
        }
        if self.dropped > DROP_LIMIT {
            let message = format!("a line is longer than {DROP_LIMIT} bytes: this is no log");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Vec::new())
    }

    fn id(&self) -> io::Result<Id> {
        Ok(Id::of(&self.file.metadata()?))
    }
}

impl Id {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Which file a name stands for now.
    fn named(files: &Files, name: &OsStr) -> io::Result<Option<Id>> {
        let found = rustix::fs::statat(&files.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = found.map(|found| Id { device: found.st_dev, inode: found.st_ino });
        present(found.map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads to the end or the first error.
    fn drain(source: &mut Source) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(mut lines) = source.read()? {
            all.append(&mut lines);
        }
        Ok(all)
    }

    #[test]
    fn a_long_line_is_left_out_and_an_endless_one_is_an_error() {
        for (hole, read) in [(2 << 20, true), (1 << 40, false)] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(b"one\n", 0).unwrap();
            file.write_all_at(b"\ntwo\n", hole).unwrap();
            let mut source = Source::at(file, 0);
            let lines = drain(&mut source);
            assert_eq!(lines.is_ok(), read, "a hole of {hole} bytes");
            assert!(lines.is_err() || lines.is_ok_and(|lines| lines.ends_with(b"\ntwo\n")));
        }
    }
}
