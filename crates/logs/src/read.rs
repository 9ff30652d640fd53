use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::changes::Changes;
use crate::error::Error;
use crate::files::{self, Files, present};
use crate::printer::Printer;
use crate::source::Source;

/// How often a log is looked at when the system tells of changes, in case that it misses one.
const SAFETY_PERIOD: Duration = Duration::from_secs(10);

/// How often a log is looked at when the system does not tell (the kubelet's `logForceCheckPeriod`).
const POLL_PERIOD: Duration = Duration::from_secs(1);

/// What to read of a log. The fields are those of Kubernetes' `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Go on until the container has ended.
    pub follow: bool,
    /// Begin each line with its time, RFC 3339 with nine digits.
    pub timestamps: bool,
    /// Leave out what was written before.
    pub since: Option<Timestamp>,
    /// Begin at the last so many records of the newest file; `since` leaves out some of those.
    pub tail_lines: Option<u64>,
    /// End after so many bytes of what is printed, within a line if need be.
    pub limit_bytes: Option<u64>,
    /// Of which streams.
    pub streams: Streams,
}

/// The output streams of a container that are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streams {
    /// Standard output and standard error, in the order in which they were written.
    #[default]
    Both,
    /// Only standard output.
    Stdout,
    /// Only standard error.
    Stderr,
}

/// Reads the log at `path` in pieces of any size. Must be polled in a tokio runtime with IO and time.
///
/// As the kubelet does, it begins in the newest file. Without `follow` it ends where that ended when it was
/// opened. With `follow` it goes on from file to file, each line once, until `ended` is true (or its sender
/// gone) and all is read; a log that is not there yet is waited for. Dropping the stream ends it at once.
/// Lines that are no records are left out.
pub fn read(
    path: PathBuf,
    query: Query,
    ended: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let reader = Reader::new(path, query, ended);
    futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|text| (Bytes::from(text), reader)))
    })
}

struct Reader {
    path: PathBuf,
    follow: bool,
    tail_lines: Option<u64>,
    ended: watch::Receiver<bool>,
    printer: Printer,
    place: Place,
    /// Made at the first wait.
    changes: Option<Changes>,
}

/// Where the reader is.
enum Place {
    /// Nothing is open yet.
    Start,
    /// There was no file at the start: all that comes will be read.
    NoFile,
    /// In this file.
    In(Source),
    /// In the first of two files that follow each other; it has all that it will ever have.
    Between(Source, Source),
}

impl Reader {
    fn new(path: PathBuf, query: Query, ended: watch::Receiver<bool>) -> Self {
        let (follow, tail_lines) = (query.follow, query.tail_lines);
        Reader {
            path,
            follow,
            tail_lines,
            ended,
            printer: Printer::new(query),
            place: Place::Start,
            changes: None,
        }
    }

    /// The next text, never empty; `None` when there will be no more.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while !self.printer.is_full() {
            // Asked first: when it has ended, all that it wrote is found by what follows.
            let ended = self.has_ended();
            let lines = self.step().await?;
            let text = lines.as_deref().map(|lines| self.print(lines));
            match text {
                Some(text) if text.is_empty() => {}
                Some(text) => return Ok(Some(text)),
                None if ended || !self.follow => return Ok(None),
                None => self.wait().await,
            }
        }
        Ok(None)
    }

    /// Takes one step: some lines, perhaps none. `None`: there is nothing more just now.
    async fn step(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let place = std::mem::replace(&mut self.place, Place::NoFile);
        let starts = matches!(place, Place::Start);
        let (path, follow, lines) = (self.path.clone(), self.follow, self.tail_lines);
        let stepped = spawn_blocking(move || place.step(&path, follow, lines)).await;
        match stepped.map_err(io::Error::other).flatten() {
            Ok((place, lines)) => {
                self.place = place;
                Ok(lines)
            }
            Err(source) if starts => Err(Error::Open { path: self.path.clone(), source }),
            Err(source) => Err(Error::Read { path: self.path.clone(), source }),
        }
    }

    fn print(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.len());
        for line in lines.split(|byte| *byte == b'\n') {
            self.printer.print(line, &mut text);
        }
        text
    }

    fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }

    /// Returns when there may be more to read.
    async fn wait(&mut self) {
        if self.changes.is_none() {
            self.changes = Changes::of(files::folder(&self.path)).ok();
            if self.changes.is_some() {
                // What was written before is told to nobody: look again.
                return;
            }
        }
        let changes = self.changes.as_ref();
        let changed = async {
            match changes {
                Some(changes) => changes.next().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let period = if changes.is_some() { SAFETY_PERIOD } else { POLL_PERIOD };
        let told = tokio::select! {
            told = changed => told,
            _ = self.ended.wait_for(|ended| *ended) => true,
            () = sleep(period) => true,
        };
        if !told {
            self.changes = None;
        }
    }
}

impl Place {
    /// Blocking. See [`Reader::step`].
    fn step(
        self,
        path: &Path,
        follow: bool,
        lines: Option<u64>,
    ) -> io::Result<(Self, Option<Vec<u8>>)> {
        match self {
            Place::Start => Ok((Place::start(path, follow, lines)?, Some(Vec::new()))),
            Place::NoFile => Ok(match Place::next(path, None)? {
                Some(source) => (Place::In(source), Some(Vec::new())),
                None => (Place::NoFile, None),
            }),
            Place::In(mut source) => match source.read()? {
                None if follow => Ok(match Place::next(path, Some(&source))? {
                    // Read once more: lines may have come before the file was left.
                    Some(next) => (Place::Between(source, next), Some(Vec::new())),
                    None => (Place::In(source), None),
                }),
                lines => Ok((Place::In(source), lines)),
            },
            Place::Between(mut source, next) => Ok(match source.read()? {
                None => (Place::In(next), Some(Vec::new())),
                lines => (Place::Between(source, next), lines),
            }),
        }
    }

    /// The file after `current`, if there is one, or a folder.
    fn next(path: &Path, current: Option<&Source>) -> io::Result<Option<Source>> {
        let Some(files) = present(Files::of(path))? else { return Ok(None) };
        Source::next(&files, current)
    }

    fn start(path: &Path, follow: bool, lines: Option<u64>) -> io::Result<Self> {
        match Files::of(path).and_then(|files| Source::newest(&files, lines)) {
            Ok(mut source) => {
                if !follow {
                    source.end_here()?;
                }
                Ok(Place::In(source))
            }
            Err(error) if follow && error.kind() == io::ErrorKind::NotFound => Ok(Place::NoFile),
            Err(error) => Err(error),
        }
    }
}
