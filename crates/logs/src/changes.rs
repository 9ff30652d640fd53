use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when a file in a folder was written, made or renamed (inotify).
pub(crate) struct Changes {
    inotify: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Fails where the folder does not exist, or where the user has no inotify instance left (there are 128
    /// by default): then one has to look from time to time.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &inotify,
            folder,
            WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR
                | WatchFlags::DONT_FOLLOW,
        )?;
        #[expect(
            unsafe_code,
            reason = "tokio has no safe way to wait for a descriptor that is no socket"
        )]
        // SAFETY: the descriptor is open, and `OwnedFd` names the same one until it is dropped, with this.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?;
        Ok(Changes { inotify })
    }

    /// Returns when something has changed since the last call. Nothing is lost when it is dropped: what it
    /// took from the queue it has taken before its last await.
    pub(crate) async fn next(&self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        let mut events = [0_u8; 4096];
        while rustix::io::retry_on_intr(|| rustix::io::read(&self.inotify, &mut events))
            .is_ok_and(|read| read > 0)
        {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn writing_making_and_renaming_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (log, full) = (folder.path().join("0.log"), folder.path().join("0.log.1"));
        let changes = Changes::of(folder.path()).unwrap();
        let told = async || {
            tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap();
        };

        std::fs::write(&log, "").unwrap();
        told().await;
        std::fs::write(&log, "text").unwrap();
        told().await;
        std::fs::rename(&log, &full).unwrap();
        told().await;
    }
}
