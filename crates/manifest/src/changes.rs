use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::{sleep, timeout};
use tracing::debug;

/// A manifest that is being written is not read before it has been left alone for so long.
const QUIET: Duration = Duration::from_millis(100);
/// After so many of these it is read in any case.
const LONGEST_QUIET: u32 = 20;
/// Bytes of events that are read at once; one has at most 272.
const BUFFER: usize = 4096;

/// Device and inode of a folder: another may take its path.
type Identity = (u64, u64);

/// What the system tells of changes in a folder (inotify).
#[derive(Default)]
pub(crate) struct Changes {
    watch: Option<(EventStream<Vec<u8>>, Identity)>,
}

impl Changes {
    /// Watches the folder at `path`, or that of the file there, from now on. Where that does not work one looks from time
    /// to time.
    pub(crate) fn follow(&mut self, path: &Path) {
        let folder = match fs::metadata(path) {
            Ok(meta) if meta.is_file() => path.parent().unwrap_or(path),
            _ => path,
        };
        let Ok(meta) = fs::metadata(folder) else {
            self.watch = None;
            return;
        };
        let identity = (meta.dev(), meta.ino());
        if self.watch.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        let stream = stream(folder).inspect_err(
            |error| debug!(%error, folder = %folder.display(), "the system tells of no changes"),
        );
        self.watch = stream.ok().map(|stream| (stream, identity));
    }

    /// Returns when something has changed and has been left alone since, or after `period`.
    pub(crate) async fn next(&mut self, period: Duration) {
        let Some((stream, _)) = &mut self.watch else { return sleep(period).await };
        match timeout(period, stream.next()).await {
            Ok(Some(Ok(_))) => {}
            Ok(_) => return self.fail(period).await,
            Err(_) => return,
        }
        for _ in 0..LONGEST_QUIET {
            if timeout(QUIET, stream.next()).await.is_err() {
                return;
            }
        }
    }

    /// A watch that breaks off is no reason to look without a pause.
    async fn fail(&mut self, period: Duration) {
        self.watch = None;
        sleep(period).await;
    }
}

/// Reading is no change, or each look would bring the next one.
fn stream(folder: &Path) -> io::Result<EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    let changes = WatchMask::CREATE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::DELETE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO;
    inotify.watches().add(folder, changes | WatchMask::ONLYDIR)?;
    inotify.into_event_stream(vec![0; BUFFER])
}
