//! What a mount means of its host path.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nodule_sandbox_proto::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// The source of a mount, which stays what it is: another pod's guest, or this one's earlier run, may change the names that
/// led to it at any moment.
pub(super) struct Source {
    path: PathBuf,
    /// Keeps `path` true where that names a descriptor.
    _open: Option<OwnedFd>,
}

impl Source {
    /// Finds it. No link leads out of the host path on the way to the sub-path. It can be mounted only if it was found
    /// among the mounts that this process has now.
    pub(super) fn find(mount: &Mount) -> io::Result<Self> {
        let Some(sub_path) = &mount.sub_path else {
            return Ok(Self { path: mount.host.clone(), _open: None });
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let folder = openat(CWD, &mount.host, flags | OFlags::DIRECTORY, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let open = openat2(folder, sub_path, flags, Mode::empty(), resolve)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { path, _open: Some(open) })
    }

    /// A path that leads to it for as long as this lives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
