//! Mounts of the process's own: the guest's, and nothing else.
//!
//! WASI gives a guest folders and nothing else. So a mount that is a file lies in the guest's root, beside what that has; where
//! there is no root, or one that cannot be laid out so, it goes, under its own name, into a folder that holds nothing but such
//! files, and the guest is given that: it sees `/etc/app.conf` and nothing else in `/etc`. All of them, and the mounts that are folders, are bind mounts on a small file system in a mount namespace of this process:
//! nobody else sees them, nothing is copied, writing goes to the file itself, and the kernel cleans up when the process
//! ends. When everything is open, that file system becomes the root, and the host's is gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot, pivot_root};
use nodule_sandbox_proto::{Access, Mount};
use thiserror::Error;

use super::apart::{self, Apart};
use super::source::Source;
use super::{JailError, laid, private};

/// The folder below the state folder that the namespace's file system is mounted on.
const FOLDER: &str = "files";

/// The beginning of the folders below the state folder that hold what a guest has changed of a folder of which it has a copy.
const PRIVATE: &str = "private";

/// What that file system may hold. It holds empty files, one for each mount.
const SIZE: &str = "mode=0755,size=1m";

/// What no mounted file is for.
pub(super) const INERT: MsFlags =
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Why a mount could not be made.
#[derive(Debug, Error)]
pub enum StageError {
    /// Its path has no folder or no name.
    #[error("mount {} at {guest}: a file needs an absolute path with a name", host.display())]
    Path {
        /// Where it is on the host.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
    },
    /// Its path is within a folder that is mounted too.
    #[error("mount {} at {guest}: a file cannot be mounted into the folder that is mounted at {folder}", host.display())]
    Inside {
        /// Where it is on the host.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
        /// The other mount.
        folder: String,
    },
    /// This process may not have mounts of its own.
    #[error(
        "mount {} files or parts of volumes: this needs root, or a kernel that lets users have namespaces",
        count
    )]
    Namespace {
        /// How many there are.
        count: usize,
        /// Why not.
        source: io::Error,
    },
    /// The file system that holds them.
    #[error("make a folder for mounted files at {}", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A namespace was entered and is not whole: nothing may be done in it.
    #[error("have mounts of its own")]
    Apart(#[source] io::Error),
    /// One of the sandbox's own folders.
    #[error("mount the sandbox's own folder {}", path.display())]
    Own {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One of them.
    #[error("mount {} at {guest}", host.display())]
    Mount {
        /// Where it is on the host.
        host: PathBuf,
        /// Where the guest would see it.
        guest: String,
        /// Why not.
        source: io::Error,
    },
}

impl StageError {
    fn inside(Mount { host, guest, .. }: &Mount, folder: &str) -> Self {
        Self::Inside { host: host.clone(), guest: guest.clone(), folder: folder.to_owned() }
    }

    fn mount(mount: &Mount, source: io::Error) -> Self {
        Self::Mount { host: mount.host.clone(), guest: mount.guest.clone(), source }
    }
}

/// The guest's mounts and the sandbox's own folders where this process finds them.
#[derive(Debug)]
pub struct Stage {
    /// Folders, with paths of this process.
    pub mounts: Vec<Mount>,
    /// The sandbox's own folders, in the order in which they were named. No guest is given one.
    pub own: Vec<PathBuf>,
    /// The file system that holds them; none where this process may not have mounts of its own.
    root: Option<PathBuf>,
    /// A folder that the guest was to change a copy of cannot be changed at all.
    pub(super) is_rigid: bool,
}

impl Stage {
    /// Makes the mounts below the state folder `state`, and those of the sandbox's own folders `own`. Called before there
    /// is another thread: it changes what the process sees of the file system.
    pub(super) fn build(mounts: &[Mount], own: &[&Path], state: &Path) -> Result<Self, StageError> {
        let (folders, files) = sort(mounts)?;
        let mut groups = group(&files, &folders)?;
        match apart::separate().map_err(StageError::Apart)? {
            Apart::Yes => {}
            // Folders can do without.
            Apart::Refused(_)
                if can_do_without(&groups, &folders)
                    && folders.iter().all(|mount| mount.sub_path.is_none()) =>
            {
                return Ok(Self::bare(folders, own));
            }
            Apart::Refused(source) => {
                return Err(StageError::Namespace { count: mounts.len(), source });
            }
        }
        let root = state.join(FOLDER);
        let folder = |source| StageError::Folder { path: root.clone(), source };
        found(&root).map_err(folder)?;
        let staged: Result<Vec<_>, _> = folders
            .iter()
            .enumerate()
            .map(|(number, mount)| {
                let changes = state.join(format!("{PRIVATE}-{number}"));
                let target = root.join(number.to_string());
                match lay(mount, &mut groups, (&target, &root.join("marks"), &changes)) {
                    Some(laid) => Ok(laid),
                    None => lead(target, mount, &changes),
                }
            })
            .collect();
        let mut mounts = staged?;
        for (number, group) in left(groups, &folders)?.iter().enumerate() {
            mounts.push(fill(&root.join(format!("files-{number}")), group)?);
        }
        let own: Result<Vec<_>, _> = own
            .iter()
            .enumerate()
            .map(|(number, path)| keep(root.join(format!("own-{number}")), path))
            .collect();
        let own = own?;
        change(&root, INERT | MsFlags::MS_RDONLY | MsFlags::MS_REMOUNT).map_err(folder)?;
        let is_rigid = is_rigid(&folders, &mounts);
        Ok(Self { mounts, own, root: Some(root), is_rigid })
    }

    /// The mounts and folders as they are, for who may have no mounts of its own.
    pub fn bare(mounts: Vec<Mount>, own: &[&Path]) -> Self {
        let is_rigid = mounts.iter().any(|mount| mount.access == Access::Private);
        let mounts = mounts.into_iter().map(rigid).collect();
        let own = own.iter().map(|path| (*path).to_owned()).collect();
        Self { mounts, own, root: None, is_rigid }
    }

    /// Whether the mounts are in a namespace of this process.
    pub(super) fn is_apart(&self) -> bool {
        self.root.is_some()
    }

    /// Makes the stage the root of the process and lets go of the host's (pivot_root(2), "pivot_root(\".\", \".\")").
    pub(super) fn leave(&self) -> Result<(), JailError> {
        let Some(root) = &self.root else { return Ok(()) };
        chdir(root)
            .and_then(|()| match pivot_root(".", ".") {
                Ok(()) => umount2(".", MntFlags::MNT_DETACH),
                Err(Errno::EINVAL) => cover(),
                Err(error) => Err(error),
            })
            .and_then(|()| chdir("/"))
            .map_err(|error| JailError::Void(error.into()))
    }
}

/// Makes the working directory's mount the root of a process whose root is the kernel's first one, an initramfs, which cannot
/// be left: it is covered, and the way back is a capability that the process gives up.
fn cover() -> nix::Result<()> {
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")
}

/// The mounts that are folders, and those that are not.
fn sort(mounts: &[Mount]) -> Result<(Vec<Mount>, Vec<Mount>), StageError> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for mount in mounts {
        let kind = Source::find(mount).and_then(|source| fs::metadata(source.path()));
        let kind = kind.map_err(|source| StageError::mount(mount, source))?;
        if kind.is_dir() { &mut folders } else { &mut files }.push(mount.clone());
    }
    Ok((folders, files))
}

/// The files of one folder of the guest.
struct Group<'a> {
    /// The folder's path for the guest.
    guest: &'a str,
    /// The files with their names in it.
    files: Vec<(&'a str, &'a Mount)>,
}

fn group<'a>(files: &'a [Mount], folders: &[Mount]) -> Result<Vec<Group<'a>>, StageError> {
    let mut groups = BTreeMap::<&str, Vec<_>>::new();
    for file in files {
        let Mount { host, guest, .. } = file;
        let (folder, name) = split(guest)
            .ok_or_else(|| StageError::Path { host: host.clone(), guest: guest.clone() })?;
        // A root is there for all that is not mounted.
        let mut around = folders.iter().filter(|outer| outer.guest != "/");
        if let Some(outer) = around.find(|outer| Path::new(folder).starts_with(&outer.guest)) {
            return Err(StageError::inside(file, &outer.guest));
        }
        groups.entry(folder).or_default().push((name, file));
    }
    Ok(groups.into_iter().map(|(guest, files)| Group { guest, files }).collect())
}

impl Group<'_> {
    /// Whether it is what the agent adds for who reads the files themselves: names are found without them.
    fn is_names(&self) -> bool {
        let is_one = |name: &str| matches!(name, "hosts" | "resolv.conf" | "hostname");
        self.guest == "/etc" && self.files.iter().all(|(name, _)| is_one(name))
    }

    /// Whether a guest can do with it all that it may where it lies in a root of this access.
    fn fits(&self, root: Access) -> bool {
        match root {
            Access::Private => true,
            Access::ReadOnly => self.files.iter().all(|(_, file)| file.access == Access::ReadOnly),
            Access::ReadWrite => false,
        }
    }
}

fn has_root(folders: &[Mount]) -> bool {
    folders.iter().any(|folder| folder.guest == "/")
}

/// Whether nothing is lost where no file can be mounted.
fn can_do_without(groups: &[Group<'_>], folders: &[Mount]) -> bool {
    groups.iter().all(|group| has_root(folders) && group.is_names())
}

/// Mounts a root with files of groups in it, which are taken away; none if it is no root, has none, or cannot be so.
fn lay(root: &Mount, groups: &mut Vec<Group<'_>>, paths: (&Path, &Path, &Path)) -> Option<Mount> {
    let fitting = groups.iter().filter(|group| root.guest == "/" && group.fits(root.access));
    let files: Vec<_> =
        fitting.flat_map(|group| group.files.iter().map(|(_, file)| *file)).collect();
    if files.is_empty() || root.sub_path.is_some() {
        return None;
    }
    let laid = laid::lay(root, &files, paths).ok()?;
    groups.retain(|group| !group.fits(root.access));
    Some(laid)
}

/// The groups that do not lie in a root. As a folder would, each covers what the root has in its place; an image's own `/etc` is
/// worth more than the agent's files.
fn left<'a>(mut groups: Vec<Group<'a>>, folders: &[Mount]) -> Result<Vec<Group<'a>>, StageError> {
    if !has_root(folders) {
        return Ok(groups);
    }
    groups.retain(|group| !group.is_names());
    let mut own = groups.iter().filter(|group| group.guest == "/");
    match own.next().and_then(|group| group.files.first()) {
        Some((_, file)) => Err(StageError::inside(file, "/")),
        None => Ok(groups),
    }
}

/// The folder and the name of an absolute path.
fn split(guest: &str) -> Option<(&str, &str)> {
    let (folder, name) = guest.rsplit_once('/')?;
    let named = !matches!(name, "" | "." | "..");
    let folder = if folder.is_empty() { "/" } else { folder };
    (named && folder.starts_with('/')).then_some((folder, name))
}

/// Mounts the file system that holds the folders.
fn found(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    Ok(mount(Some("nodule"), root, Some("tmpfs"), INERT, Some(SIZE))?)
}

/// A folder as it is where no copy of it can be had.
fn rigid(mount: Mount) -> Mount {
    match mount.access {
        Access::Private => Mount { access: Access::ReadOnly, ..mount },
        Access::ReadOnly | Access::ReadWrite => mount,
    }
}

/// Whether a folder has become rigid.
fn is_rigid(asked: &[Mount], given: &[Mount]) -> bool {
    asked.iter().zip(given).any(|(asked, given)| asked.access != given.access)
}

/// Mounts a folder, with all that is mounted below it, at `target`; if a guest changes a copy of it, that is in `changes`.
fn lead(target: PathBuf, folder: &Mount, changes: &Path) -> Result<Mount, StageError> {
    if folder.access == Access::Private
        && private::cover(&[&folder.host], Some(changes), &target).is_ok()
    {
        return Ok(Mount { host: target, ..folder.clone() });
    }
    let folder = &rigid(folder.clone());
    let bound =
        Source::find(folder).and_then(|source| bind_folder(&target, source.path(), folder.access));
    bound.map_err(|source| StageError::mount(folder, source))?;
    Ok(staged(target, &folder.guest, folder.access))
}

/// A mount that is made.
fn staged(host: PathBuf, guest: &str, access: Access) -> Mount {
    Mount { host, sub_path: None, guest: guest.to_owned(), access }
}

fn bind_folder(target: &Path, folder: &Path, access: Access) -> io::Result<()> {
    fs::create_dir(target)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(folder), target, None::<&str>, flags, None::<&str>)?;
    hold(target, access)
}

/// Mounts one of the sandbox's own folders at `target`: what is opened there leads no further than itself.
fn keep(target: PathBuf, folder: &Path) -> Result<PathBuf, StageError> {
    let bound = bind_folder(&target, folder, Access::ReadWrite);
    bound.map_err(|source| StageError::Own { path: folder.to_owned(), source })?;
    Ok(target)
}

/// Fills `folder` with a group's files.
fn fill(folder: &Path, group: &Group<'_>) -> Result<Mount, StageError> {
    fs::create_dir(folder)
        .map_err(|source| StageError::Folder { path: folder.to_owned(), source })?;
    for (name, file) in &group.files {
        bind(&folder.join(name), file).map_err(|source| StageError::mount(file, source))?;
    }
    let writable = group.files.iter().any(|(_, file)| file.access == Access::ReadWrite);
    let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
    Ok(staged(folder.to_owned(), group.guest, access))
}

/// Mounts one file on an empty one.
fn bind(target: &Path, file: &Mount) -> io::Result<()> {
    File::create_new(target)?;
    attach(target, file)
}

/// Mounts a file on one that is there.
pub(super) fn attach(target: &Path, file: &Mount) -> io::Result<()> {
    let source = Source::find(file)?;
    mount(Some(source.path()), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    hold(target, file.access)
}

/// Devices and set-user-id programs of a mounted folder are only files here; one that may only be read is so for the
/// kernel, too. What is mounted below it stays as it is: that it is not written to is the WASI host's to see to.
fn hold(target: &Path, access: Access) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | INERT | kept(target)?;
    match access {
        Access::ReadWrite | Access::Private => change(target, flags),
        Access::ReadOnly => change(target, flags | MsFlags::MS_RDONLY),
    }
}

/// The flags of a mount that a user namespace may not take away.
fn kept(target: &Path) -> io::Result<MsFlags> {
    let flags = statvfs(target)?.flags();
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    Ok(pairs.into_iter().filter(|(has, _)| flags.contains(*has)).map(|(_, keep)| keep).collect())
}

/// Changes the flags of a mount.
pub(super) fn change(target: &Path, flags: MsFlags) -> io::Result<()> {
    Ok(mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(guest: &str) -> Mount {
        staged("/h".into(), guest, Access::ReadOnly)
    }

    #[test]
    fn paths_are_split_into_folder_and_name() {
        assert_eq!(split("/etc/app.conf"), Some(("/etc", "app.conf")));
        assert_eq!(split("/a"), Some(("/", "a")));
        for bad in ["", "a", "a/b", "/", "/etc/", "/etc/..", "/."] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_of_one_folder_are_together() {
        let files = [at("/etc/a"), at("/b"), at("/etc/c")];
        let groups = group(&files, &[at("/etc/ssl")]).unwrap();
        let seen: Vec<_> = groups.iter().map(|group| (group.guest, group.files.len())).collect();
        assert_eq!(seen, [("/", 1), ("/etc", 2)]);
    }

    #[test]
    fn a_file_in_a_mounted_folder_is_refused() {
        for folder in ["/etc", "/etc/deep"] {
            let error = group(&[at("/etc/deep/a")], &[at(folder)]).err().unwrap();
            assert!(matches!(error, StageError::Inside { .. }), "{error}");
        }
        for folder in ["/et", "/"] {
            assert!(group(&[at("/etc/a")], &[at(folder)]).is_ok(), "{folder}");
        }
        let (files, root) = ([at("/a")], [at("/")]);
        assert!(left(group(&files, &root).unwrap(), &root).is_err());
        assert!(left(group(&files, &[]).unwrap(), &[]).is_ok());
    }

    #[test]
    fn files_of_names_give_way_to_an_images_own_folder() {
        let (files, root) = ([at("/etc/hosts"), at("/etc/hostname")], [at("/")]);
        let groups = group(&files, &root).unwrap();
        assert!(can_do_without(&groups, &root) && !can_do_without(&groups, &[]));
        assert_eq!(left(groups, &root).unwrap().len(), 0);
        let more = [at("/etc/hosts"), at("/etc/app.yaml")];
        let groups = group(&more, &root).unwrap();
        assert!(!can_do_without(&groups, &root));
        assert_eq!(left(groups, &root).unwrap().len(), 1);
    }

    #[test]
    fn a_root_takes_files_that_it_does_not_make_less_of() {
        let writable = staged("/h".into(), "/etc/a", Access::ReadWrite);
        for (file, fits) in [(at("/etc/a"), [true, true]), (writable, [true, false])] {
            let files = [file];
            let groups = group(&files, &[]).unwrap();
            let has = [Access::Private, Access::ReadOnly].map(|access| groups[0].fits(access));
            assert_eq!(has, fits);
            assert!(!groups[0].fits(Access::ReadWrite));
        }
    }
}
