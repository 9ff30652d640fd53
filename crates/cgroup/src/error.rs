//! What can go wrong, and what an operator can do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why cgroups cannot be had, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something else is at the mount point, or nothing: cgroup v1, the hybrid layout, no cgroups at all.
    #[error(
        "{} is not cgroup v2: boot with systemd.unified_cgroup_hierarchy=1, or mount it there with \
         `mount -t cgroup2 none {}`", mount.display(), mount.display()
    )]
    NotMounted {
        /// Where cgroup v2 was looked for.
        mount: PathBuf,
    },
    /// The parent passes too few controllers on.
    #[error(
        "cgroup {}: the kernel does not offer the controllers {missing} there: bind them to no cgroup v1 mount and leave them \
         out of cgroup_disable= on the kernel's command line, or delegate them to this cgroup", path.display()
    )]
    Controllers {
        /// The cgroup that would pass them on.
        path: PathBuf,
        /// Those that it has not, by name.
        missing: String,
    },
    /// Processes are where only cgroups may be (cgroup-v2.rst, "No Internal Process Constraint").
    #[error(
        "cgroup {}: processes run in it, so it cannot pass controllers on: move them into a child of it, or choose another \
         cgroup as root", path.display()
    )]
    Occupied {
        /// The cgroup that would pass controllers on.
        path: PathBuf,
    },
    /// The cgroup is another user's, or mounted read-only as in most containers.
    #[error(
        "cgroup {}: may not be written: run as root, or in a cgroup that was delegated (systemd: Delegate=yes; in a container: \
         a writable cgroup mount)", path.display()
    )]
    NotWritable {
        /// The cgroup or its file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A name that may not be that of a cgroup.
    #[error("{name:?} cannot name a cgroup: only letters, digits, '-' and '_' can, 128 at most")]
    Name {
        /// The name.
        name: String,
    },
    /// Not a class that the API has.
    #[error("{name:?} is no QoS class")]
    Qos {
        /// What was given.
        name: String,
    },
    /// The root is not a path inside the mount.
    #[error("{} cannot be a cgroup's path: it must lead downward", path.display())]
    Root {
        /// The path.
        path: PathBuf,
    },
    /// A cgroup could not be made.
    #[error("create cgroup {}", path.display())]
    Create {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A cgroup or a file of it could not be opened.
    #[error("open {}", path.display())]
    Open {
        /// The cgroup or the file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file holds something else than the kernel documents.
    #[error("{}: no number for {field}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was looked for in it.
        field: &'static str,
    },
    /// The kernel refused a value.
    #[error("write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The children of a cgroup could not be listed.
    #[error("list cgroup {}", path.display())]
    List {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A cgroup could not be removed.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Killed processes did not end in time: they hang in the kernel, on a device or a network file system mostly.
    #[error("cgroup {}: its processes were killed and still do not end", path.display())]
    Busy {
        /// The cgroup.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn create(path: &Path, cause: Errno) -> Self {
        refused(path, cause)
            .unwrap_or_else(|| Self::Create { path: path.to_owned(), source: cause.into() })
    }

    pub(crate) fn write(path: &Path, value: &str, cause: Errno) -> Self {
        refused(path, cause).unwrap_or_else(|| Self::Write {
            path: path.to_owned(),
            value: value.to_owned(),
            source: cause.into(),
        })
    }

    /// Whether the kernel refused a value for this reason.
    pub(crate) fn is_write(&self, cause: Errno) -> bool {
        matches!(self, Self::Write { source, .. } if Errno::from_io_error(source) == Some(cause))
    }
}

fn refused(path: &Path, cause: Errno) -> Option<Error> {
    matches!(cause, Errno::ACCESS | Errno::PERM | Errno::ROFS)
        .then(|| Error::NotWritable { path: path.to_owned(), source: cause.into() })
}
