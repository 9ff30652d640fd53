//! The guest's standard output and error: both go to the container's log.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use nodule_logs::{Error, Rotation, Stream, Writer};
use nodule_sandbox_proto::User;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::error::{StartError, chain};
use crate::process::diagnose;

/// How much a guest may hand over in one call, in bytes: all of it is on the host's heap meanwhile.
const CHUNK: usize = 64 << 10;

/// The container's log, shared by the guest's two streams and the control thread.
#[derive(Clone)]
pub(crate) struct Log {
    open: Arc<Mutex<Open>>,
}

/// What the lock guards. It is held only for as long as the disk takes.
struct Open {
    /// None once the container has ended.
    writer: Option<Writer>,
    /// Whether output is being lost, which is told once and not for every line.
    losing: bool,
}

impl Log {
    /// Opens the log that the agent has named, in `folder`, where the process finds the log's folder now. With it comes
    /// that folder: files are turned there later.
    pub(crate) fn open(
        log: &nodule_sandbox_proto::Log,
        folder: &Path,
    ) -> Result<(Self, OwnedFd), StartError> {
        let name = log.path.file_name().unwrap_or_default();
        let folder = nodule_logs::folder(&folder.join(name))?;
        let rotation = Rotation { max_size: log.max_size, max_files: log.max_files };
        let writer = Some(Writer::open(own(&folder, log)?, name, rotation)?);
        Ok((Self { open: Arc::new(Mutex::new(Open { writer, losing: false })) }, folder))
    }

    /// One of the guest's streams.
    pub(crate) fn stream(&self, stream: Stream) -> Output {
        Output { log: self.clone(), stream }
    }

    /// Writes what the host itself has to say, whole lines, between the guest's.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        self.lock().attempt(|writer| writer.write(stream, bytes));
    }

    /// Writes the unfinished lines that are held.
    pub(crate) fn flush(&self) {
        self.lock().attempt(Writer::flush);
    }

    /// Ends the unfinished lines and syncs. What is written afterwards is dropped.
    pub(crate) fn finish(&self) {
        let writer = self.lock().writer.take();
        if let Some(Err(error)) = writer.map(Writer::finish) {
            diagnose(chain(&error));
        }
    }

    /// A panic while the log was locked is no reason to lose the rest of it.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the folder of the log at `path` and gives it to `user`. Returns where it is.
pub(crate) fn found<'a>(path: &'a Path, user: Option<&User>) -> Result<&'a Path, StartError> {
    let folder = nodule_logs::folder(path)?;
    if let Some(user) = user {
        std::os::unix::fs::fchown(&folder, Some(user.uid), Some(user.gid))
            .map_err(|source| StartError::LogFolder(path.to_owned(), source))?;
    }
    Ok(path.parent().unwrap_or(path))
}

/// One more descriptor of the folder.
fn own(folder: &OwnedFd, log: &nodule_sandbox_proto::Log) -> Result<OwnedFd, StartError> {
    folder.try_clone().map_err(|source| StartError::LogFolder(log.path.clone(), source))
}

impl Open {
    /// The guest is not told of a full disk: a native container would not be, and most programs die of such an error.
    fn attempt(&mut self, act: impl FnOnce(&mut Writer) -> Result<(), Error>) {
        let Some(writer) = &mut self.writer else { return };
        let result = act(writer);
        if let Err(error) = &result
            && !self.losing
        {
            diagnose(format_args!("output is lost: {}", chain(error)));
        }
        self.losing = result.is_err();
    }
}

/// Standard output or standard error, as WASI wants it. It is never full: a slow disk slows only its own guest.
#[derive(Clone)]
pub(crate) struct Output {
    log: Log,
    stream: Stream,
}

impl Output {
    fn put(&self, bytes: &[u8]) {
        self.log.write(self.stream, bytes);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    /// WASI 0.1 flushes after every write, which says nothing about lines: an unfinished one is held on.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
