//! Files that are mounted into a root: what an image has beside them stays in sight.
//!
//! A file can be mounted only on one that is there, and an image's files are never changed. So above them lies a folder that
//! has empty files in the places of the mounted ones (overlayfs), and those are mounted on.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nodule_sandbox_proto::{Access, Mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::private;
use super::stage::attach;

/// A file and where it goes: a path relative to the root, none of whose folders is a link.
type Placed<'a> = (PathBuf, &'a Mount);

/// Mounts the root at `target` with these files in it. `marks` is made for the empty ones, `changes` for what a guest changes.
/// Fails where the kernel or the user's rights do not allow it, and then leaves no `target`.
pub(super) fn lay(
    root: &Mount,
    files: &[&Mount],
    (target, marks, changes): (&Path, &Path, &Path),
) -> io::Result<Mount> {
    let below = openat(CWD, &root.host, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let placed = files.iter().map(|file| Ok((place(&below, &file.guest)?, *file)));
    let placed = placed.collect::<io::Result<Vec<Placed<'_>>>>()?;
    mark(marks, &placed)?;
    let changes = Some(changes).filter(|_| root.access == Access::Private);
    private::cover(&[marks, &root.host], changes, target)?;
    let attached = placed.iter().try_for_each(|(place, file)| attach(&target.join(place), file));
    if let Err(error) = attached {
        umount2(target, MntFlags::MNT_DETACH)?;
        fs::remove_dir(target)?;
        return Err(error);
    }
    Ok(Mount { host: target.to_owned(), ..root.clone() })
}

/// Where a path of the guest leads in the root `below`, as if that were the root of all. Its last part is meant as it is: a
/// link there gives way to the file.
fn place(below: &OwnedFd, guest: &str) -> io::Result<PathBuf> {
    let real = |file: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let root = real(below)?;
    let mut parts: Vec<_> = guest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let last = parts.pop().filter(|part| *part != "..").ok_or(Errno::INVAL)?;
    let mut folder = PathBuf::new();
    for part in parts {
        let next = folder.join(part);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(below, &next, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), resolve) {
            Ok(found) => {
                let path = real(&found)?;
                folder = path.strip_prefix(&root).map_err(io::Error::other)?.to_owned();
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if part != ".." => folder = next,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(folder.join(last))
}

/// Makes the empty files, in folders that a guest may use as it may the image's.
fn mark(marks: &Path, files: &[Placed<'_>]) -> io::Result<()> {
    let open = |folder: &Path| {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o777))
    };
    open(marks)?;
    for (place, _) in files {
        let mut folder = marks.to_owned();
        for part in place.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            open(&folder)?;
        }
        File::create(marks.join(place))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_place_is_found_in_the_root_whatever_its_links_say() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("usr/etc")).unwrap();
        for (link, target) in
            [("etc", "/usr/etc"), ("up", "../../usr"), ("void", "/nowhere"), ("loop", "loop")]
        {
            symlink(target, root.join(link)).unwrap();
        }
        symlink("/run/resolv.conf", root.join("usr/etc/resolv.conf")).unwrap();
        let below = openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for (guest, found) in [
            ("/a", "a"),
            ("/etc/hosts", "usr/etc/hosts"),
            ("/etc/resolv.conf", "usr/etc/resolv.conf"),
            ("/up/etc/x", "usr/etc/x"),
            ("/void/x", "void/x"),
            ("/loop/x", "loop/x"),
            ("/new/deep/x", "new/deep/x"),
        ] {
            assert_eq!(place(&below, guest).unwrap(), Path::new(found), "{guest}");
        }
        for bad in ["/", "/..", "/none/../x"] {
            assert!(place(&below, bad).is_err(), "{bad}");
        }
    }
}
