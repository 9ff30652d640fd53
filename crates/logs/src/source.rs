use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::{rotated, tail};

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// A line longer than this is no record; it is left out instead of kept in memory.
const LINE_LIMIT: usize = 1 << 20;

/// One file of a log that is being read. All here is blocking.
pub(crate) struct Source {
    file: File,
    /// Where the next read begins.
    position: u64,
    /// Where reading ends, however much there is.
    end: u64,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
}

/// What tells a file from all others as long as it is open, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
}

impl Source {
    fn at(file: File, position: u64) -> Self {
        Source { file, position, end: u64::MAX, rest: Vec::new() }
    }

    /// Opens a log's newest file, at its last `lines`. While the log is being rotated there may be none at
    /// `path` for a moment: then it is the one that was renamed last.
    pub(crate) fn newest(path: &Path, lines: Option<u64>) -> io::Result<Self> {
        let file = match found(File::open(path))? {
            Some(file) => file,
            None => File::open(rotated::list(path)?.pop().ok_or(io::ErrorKind::NotFound)?)?,
        };
        let position = lines.map_or(Ok(0), |lines| tail::start(&file, lines))?;
        Ok(Source::at(file, position))
    }

    /// Opens the file that the log went on in after `current`; the oldest if there is no current one.
    /// `None`: there is no such file yet. Called at the end of a file; once there is a next one nothing more is
    /// written to this.
    pub(crate) fn next(path: &Path, current: Option<&Source>) -> io::Result<Option<Self>> {
        if let Some(current) = current
            && Id::of_path(path)? == Some(current.id()?)
        {
            return Ok(None);
        }
        // Between listing and opening files may have got other names. What was opened is the next one only
        // if a list made afterwards says so too: it holds all that was renamed before.
        loop {
            let Some((next, id)) = Self::after(path, current)? else { return Ok(None) };
            let Some(file) = found(File::open(next))? else { continue };
            let opened = Id::of(&file.metadata()?);
            if opened == id && Self::after(path, current)?.is_some_and(|(_, id)| id == opened) {
                return Ok(Some(Source::at(file, 0)));
            }
        }
    }

    fn after(path: &Path, current: Option<&Source>) -> io::Result<Option<(PathBuf, Id)>> {
        let mut files = Vec::new();
        let rotated = found(rotated::list(path))?.unwrap_or_default();
        for file in rotated.into_iter().chain([path.to_owned()]) {
            if let Some(id) = Id::of_path(&file)? {
                files.push((file, id));
            }
        }
        let mut files = files.into_iter();
        let Some(current) = current else { return Ok(files.next()) };
        // A removed file was the oldest. One that is neither removed nor listed is just being renamed.
        if current.file.metadata()?.nlink() == 0 {
            return Ok(files.next());
        }
        let id = current.id()?;
        files.find(|file| file.1 == id);
        Ok(files.next())
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
        Ok((read > 0).then(|| self.whole_lines()))
    }

    fn whole_lines(&mut self) -> Vec<u8> {
        if let Some(newline) = self.rest.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.rest.split_off(newline + 1);
            return std::mem::replace(&mut self.rest, rest);
        }
        if self.rest.len() > LINE_LIMIT {
            self.rest.clear();
        }
        Vec::new()
    }

    fn id(&self) -> io::Result<Id> {
        Ok(Id::of(&self.file.metadata()?))
    }
}

impl Id {
    fn of(metadata: &Metadata) -> Self {
        Id { device: metadata.dev(), inode: metadata.ino() }
    }

    fn of_path(path: &Path) -> io::Result<Option<Self>> {
        Ok(found(std::fs::metadata(path))?.as_ref().map(Id::of))
    }
}

/// A file that is not there is an answer, not an error.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
