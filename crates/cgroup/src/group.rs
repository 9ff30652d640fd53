//! One cgroup: its limits, its use, its processes, its end.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::limits::{Kind, weight};
use crate::top::Top;
use crate::{Error, Limits, Stats};

/// How often the removal of a cgroup is tried, and how long is waited between for its processes to end: ten seconds in all.
const ROUNDS: usize = 100;
const ROUND: Duration = Duration::from_millis(100);

/// A cgroup of a pod or of a container. Nothing is held open: one that was removed meanwhile gives errors.
#[derive(Debug, Clone)]
pub struct Group {
    top: Arc<Top>,
    /// Below the mount.
    below: PathBuf,
    kind: Kind,
}

impl Group {
    pub(crate) fn new(top: Arc<Top>, below: PathBuf, kind: Kind) -> Self {
        Self { top, below, kind }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.top.absolute(&self.below)
    }

    /// Sets all limits; what is not in `limits` is lifted. Less memory than is in use now makes the kernel reclaim, and where
    /// that does not suffice, kill: see [`Group::stats`] first.
    pub fn limit(&self, limits: &Limits) -> Result<(), Error> {
        for (file, value) in limits.files(self.kind) {
            self.write(file, &value)?;
        }
        match self.kind {
            Kind::Container => self.keep_from_swap(),
            Kind::Inner => Ok(()),
        }
    }

    /// The kubelet's `NoSwap`. A kernel that does not count swap has no such file.
    fn keep_from_swap(&self) -> Result<(), Error> {
        match self.write("memory.swap.max", "0") {
            Err(error) if error.is_write(Errno::NOENT) => Ok(()),
            written => written,
        }
    }

    /// Sets the share of the CPU where there is not enough for all; `request` in thousandths of a CPU.
    pub(crate) fn weigh(&self, request: u64) -> Result<(), Error> {
        self.write("cpu.weight", &weight(request).to_string())
    }

    /// What it and all below it use and have used.
    pub fn stats(&self) -> Result<Stats, Error> {
        Stats::read(self)
    }

    /// A file with which a process enters: it writes `0` to it. The kernel asks for the rights of who opened it, not of who
    /// writes (since Linux 5.16), so a process without rights can do that. Only a container's cgroup can be entered.
    pub fn join(&self) -> Result<File, Error> {
        let path = self.below.join("cgroup.procs");
        let opened = self.top.writer(&path).map(File::from);
        opened.map_err(|cause| Error::Open { path: self.top.absolute(&path), source: cause.into() })
    }

    /// The cgroup itself, to start a process in it by clone3(2) with `CLONE_INTO_CGROUP`.
    pub fn open(&self) -> Result<OwnedFd, Error> {
        let opened = self.top.folder(&self.below);
        opened.map_err(|cause| Error::Open { path: self.path(), source: cause.into() })
    }

    /// Kills all processes in it and below it, those too that are just being forked. Does not wait for their end.
    pub fn kill(&self) -> Result<(), Error> {
        self.write("cgroup.kill", "1")
    }

    /// Kills what is left in it, and removes it with all below it. One that is not there is removed. Waits for the processes,
    /// at most some ten seconds: after [`Error::Busy`] it can be called again.
    pub fn remove(&self) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            match self.try_remove() {
                // The second comes from a file that was open as the cgroup went.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
                Err(Errno::BUSY) => {}
                Err(cause) => {
                    return Err(Error::Remove { path: self.path(), source: cause.into() });
                }
            }
        }
        Err(Error::Busy { path: self.path() })
    }

    /// [`Errno::BUSY`] comes after some time, or as soon as the last process has ended.
    fn try_remove(&self) -> Result<(), Errno> {
        let mut events = self.top.reader(&self.below.join("cgroup.events"))?;
        self.top.write(&self.below.join("cgroup.kill"), "1")?;
        // What was read is not told again: only what happens from now on ends the wait.
        events.read_to_end(&mut Vec::new()).map_err(|error| errno(&error))?;
        let removed = remove_all(&self.top, &self.below);
        if removed == Err(Errno::BUSY) {
            wait(&events)?;
        }
        removed
    }

    pub(crate) fn top(&self) -> &Arc<Top> {
        &self.top
    }

    pub(crate) fn below(&self) -> &Path {
        &self.below
    }

    /// Makes it, unless it is there.
    pub(crate) fn create(&self) -> Result<(), Error> {
        self.top.create(&self.below).map_err(|cause| Error::create(&self.path(), cause))
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        self.top.read(&self.below.join(file))
    }

    pub(crate) fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let path = self.below.join(file);
        let written = self.top.write(&path, value);
        written.map_err(|cause| Error::write(&self.top.absolute(&path), value, cause))
    }

    /// The one inside of it that has this name. It need not be there.
    pub(crate) fn child(&self, name: &str, kind: Kind) -> Self {
        Self::new(Arc::clone(&self.top), self.below.join(name), kind)
    }
}

/// Children first. Some may be gone when the kernel refuses another.
fn remove_all(top: &Top, path: &Path) -> Result<(), Errno> {
    for child in top.children(path)? {
        match remove_all(top, &child) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(cause) => return Err(cause),
        }
    }
    top.remove(path)
}

fn wait(events: &File) -> Result<(), Errno> {
    let limit = Timespec::try_from(ROUND).unwrap_or_default();
    match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
