use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};

use crate::error::Error;
use crate::files;
use crate::output::Output;
use crate::record::{Prefix, Stream, TEXT_LIMIT, Tag};

/// How large a log may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which a new file is begun (the kubelet's `containerLogMaxSize`).
    pub max_size: u64,
    /// Files that are kept, the one being written included (the kubelet's `containerLogMaxFiles`); at least 2.
    pub max_files: u32,
}

impl Default for Rotation {
    /// The kubelet's defaults: five files of 10 MiB.
    fn default() -> Self {
        Rotation { max_size: 10 << 20, max_files: 5 }
    }
}

/// Writes one container's output to its log.
///
/// There must be one writer to a file. Whole lines are in the file when [`write`](Self::write) returns, so
/// they outlive the process; an unfinished line is held until it ends, until it is longer than 16 KiB, or until
/// [`flush`](Self::flush), so that what the other stream writes meanwhile does not land inside it.
pub struct Writer {
    output: Output,
    stdout: Line,
    stderr: Line,
}

/// The unfinished line of a stream.
#[derive(Default)]
struct Line {
    /// What is not written yet.
    held: Vec<u8>,
    /// A part of it is in the log, as `P`.
    begun: bool,
}

impl Writer {
    /// Appends to the log `name` in `folder`, and creates it where it does not exist. No path is looked up, here or later:
    /// the process may have no file system any more. A link in a file's place is refused.
    pub fn open(folder: OwnedFd, name: &OsStr, rotation: Rotation) -> Result<Self, Error> {
        Ok(Writer {
            output: Output::open(folder, name, rotation)?,
            stdout: Line::default(),
            stderr: Line::default(),
        })
    }

    /// Takes what the container wrote. After an error the writer may be used on: the disk may have room again.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Error> {
        let prefix = Prefix::new(Timestamp::now(), stream);
        let line = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.take(piece, &prefix, &mut self.output)?;
        }
        self.output.commit()
    }

    /// Writes what is held of unfinished lines, so that a prompt or a progress bar can be seen.
    pub fn flush(&mut self) -> Result<(), Error> {
        let now = Timestamp::now();
        self.stdout.flush(&Prefix::new(now, Stream::Stdout), &mut self.output)?;
        self.stderr.flush(&Prefix::new(now, Stream::Stderr), &mut self.output)?;
        self.output.commit()
    }

    /// The container has ended: its unfinished lines end too. On return the disk has all of it.
    pub fn finish(mut self) -> Result<(), Error> {
        let now = Timestamp::now();
        self.stdout.end(&Prefix::new(now, Stream::Stdout), &mut self.output)?;
        self.stderr.end(&Prefix::new(now, Stream::Stderr), &mut self.output)?;
        self.output.commit()?;
        self.output.sync()
    }
}

/// Opens the folder that the log at `path` lies in, for [`Writer::open`], and makes it where it does not exist.
pub fn folder(path: &Path) -> Result<OwnedFd, Error> {
    let opened = || {
        let folder = files::folder(path);
        std::fs::create_dir_all(folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(folder, flags, Mode::empty())?)
    };
    opened().map_err(|source| Error::Open { path: path.to_owned(), source })
}

impl Line {
    /// Takes a piece of output that has a newline at its end or nowhere.
    fn take(&mut self, piece: &[u8], prefix: &Prefix, output: &mut Output) -> Result<(), Error> {
        let (mut text, ended) = match piece.split_last() {
            Some((b'\n', text)) => (text, true),
            Some(_) | None => (piece, false),
        };
        while let Some((fits, rest)) =
            text.split_at_checked(TEXT_LIMIT - self.held.len()).filter(|cut| !cut.1.is_empty())
        {
            self.record(Tag::Partial, fits, prefix, output)?;
            text = rest;
        }
        if ended {
            return self.record(Tag::Full, text, prefix, output);
        }
        self.held.extend_from_slice(text);
        Ok(())
    }

    fn flush(&mut self, prefix: &Prefix, output: &mut Output) -> Result<(), Error> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.record(Tag::Partial, b"", prefix, output)
    }

    fn end(&mut self, prefix: &Prefix, output: &mut Output) -> Result<(), Error> {
        if self.held.is_empty() && !self.begun {
            return Ok(());
        }
        self.record(Tag::Full, b"", prefix, output)
    }

    fn record(
        &mut self,
        tag: Tag,
        text: &[u8],
        prefix: &Prefix,
        output: &mut Output,
    ) -> Result<(), Error> {
        let recorded = output.record(prefix, tag, &self.held, text);
        self.held.clear();
        self.begun = tag == Tag::Partial;
        recorded
    }
}
