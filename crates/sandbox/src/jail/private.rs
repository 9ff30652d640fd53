//! A folder that a guest changes a copy of: the kernel keeps what is changed beside it (overlayfs).
//!
//! The mount is in the process's own namespace and goes with it. What was changed lies in the container's state folder,
//! and goes with that.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::stage::INERT;

/// Mounts at `target`, which is made, the folders `below`, the uppermost first, with what is changed in `own`, which is made
/// too; without it nothing is changed. Fails where the kernel, the file system of `own` or the user's rights do not allow it,
/// and then leaves no `target`.
pub(super) fn cover(below: &[&Path], own: Option<&Path>, target: &Path) -> io::Result<()> {
    fs::create_dir(target)?;
    lay(below, own, target).or_else(|error| fs::remove_dir(target).and(Err(error)))
}

fn lay(below: &[&Path], own: Option<&Path>, target: &Path) -> io::Result<()> {
    let below = below.iter().map(|folder| hold(folder)).collect::<io::Result<Vec<_>>>()?;
    // By descriptor: a path with a comma or a colon would be read as another option.
    let at = |folder: &OwnedFd| format!("/proc/self/fd/{}", folder.as_raw_fd());
    let lower = below.iter().map(at).collect::<Vec<_>>().join(":");
    let Some(own) = own else {
        let options = format!("lowerdir={lower}");
        let flags = INERT | MsFlags::MS_RDONLY;
        return Ok(mount(Some("nodule"), target, Some("overlay"), flags, Some(options.as_str()))?);
    };
    let (changes, work) = make(own)?;
    let folders = format!("lowerdir={lower},upperdir={},workdir={}", at(&changes), at(&work));
    // Nothing of it is used after a crash, so that nothing is synced. In a user namespace marks are attributes that a user
    // may set, which the kernel wants to be told.
    let try_with = |marks: &str| {
        let options = format!("{folders},volatile{marks}");
        mount(Some("nodule"), target, Some("overlay"), INERT, Some(options.as_str()))
    };
    Ok(try_with("").or_else(|_| try_with(",userxattr"))?)
}

/// The folders for what is changed, and for the kernel's own work.
fn make(own: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let (changes, work) = (own.join("changes"), own.join("work"));
    // Of an earlier try, which came not so far that there was a guest.
    match fs::remove_dir_all(own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(own)?;
    for folder in [&changes, &work] {
        DirBuilder::new().mode(0o700).create(folder)?;
    }
    // The mount's root has the mode of this folder, and the guest's user makes files in it.
    fs::set_permissions(&changes, Permissions::from_mode(0o777))?;
    Ok((hold(&changes)?, hold(&work)?))
}

fn hold(folder: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
