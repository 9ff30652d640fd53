//! Sets up one volume of a pod.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::atomic::{Files, WriteError, write};
use crate::memory::{MemoryError, mount_on};
use crate::owner::{Change, Group, OwnError, hand_over};

/// What a volume is made of.
#[derive(Debug, Clone)]
pub enum Source {
    /// An `emptyDir`.
    Empty {
        /// `medium: Memory`.
        memory: bool,
        /// The most that it holds in memory, in bytes.
        size: Option<u64>,
    },
    /// A `hostPath`.
    Host(HostPathVolumeSource),
    /// Files that the agent writes.
    Files {
        /// The kind, as the kubelet names its folder: `configmap`, `secret`, `projected`, `downward-api`.
        kind: &'static str,
        /// All of them.
        files: Files,
        /// They belong in memory.
        secret: bool,
    },
    /// A folder of the node's that somebody else has made: a PersistentVolume of the kind `local`.
    Folder(PathBuf),
}

/// Where a pod's volumes are set up, and for whom.
#[derive(Debug, Clone)]
pub struct Site {
    /// The pod's own folder of volumes.
    pub folder: PathBuf,
    /// The pod's folder in memory ([`Memory::of`](crate::Memory::of)).
    pub memory: PathBuf,
    /// Whether this process may mount.
    pub may_mount: bool,
    /// The pod's `fsGroup`.
    pub group: Option<Group>,
    /// When that is applied to what was there before.
    pub change: Change,
}

/// A volume that is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it lies.
    pub path: PathBuf,
    /// It should be in memory, and is on a disk as this process may not mount.
    pub on_disk: bool,
}

/// Why a volume cannot be had. The Event's reason is `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What lies at a hostPath is not what its type says.
    #[error("hostPath type check failed: {} is not {wanted}", path.display())]
    Type {
        /// The path on the host.
        path: PathBuf,
        /// The kubelet's words for what the pod asks for.
        wanted: &'static str,
    },
    /// A type of hostPath that there is not.
    #[error("{kind} is an invalid volume type")]
    Kind {
        /// As the pod has it.
        kind: String,
    },
    /// A PersistentVolume's folder that there is not.
    #[error("path {} does not exist", path.display())]
    Missing {
        /// The path on the host.
        path: PathBuf,
    },
    /// The host refused.
    #[error("create {}", path.display())]
    Create {
        /// The path on the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its files could not be written.
    #[error(transparent)]
    Write(WriteError),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(MemoryError),
    /// It could not be given to the pod's group.
    #[error(transparent)]
    Own(OwnError),
}

/// Sets a volume up, or finds that it is. Blocking, and for as long as the host's file systems take.
pub fn set_up(name: &str, source: &Source, site: &Site) -> Result<Place, Error> {
    match source {
        Source::Empty { memory, size } => empty_dir(name, *memory, *size, site),
        Source::Host(source) => {
            host_path(source)?;
            Ok(Place { path: PathBuf::from(&source.path), on_disk: false })
        }
        Source::Files { kind, files, secret } => {
            let path = if *secret {
                site.memory.join(name)
            } else {
                site.folder.join(format!("kubernetes.io~{kind}")).join(name)
            };
            create(&path, 0o755)?;
            write(&path, files, site.group).map_err(Error::Write)?;
            Ok(Place { path, on_disk: false })
        }
        Source::Folder(path) => {
            if !path.exists() {
                return Err(Error::Missing { path: path.clone() });
            }
            if let Some(group) = site.group {
                hand_over(path, group, site.change).map_err(Error::Own)?;
            }
            Ok(Place { path: path.clone(), on_disk: false })
        }
    }
}

/// Where the `emptyDir` of this name lies below a pod's folder of volumes: the kubelet's layout, which tools that measure
/// volumes know.
pub fn empty_dir_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("kubernetes.io~empty-dir").join(name)
}

fn empty_dir(name: &str, memory: bool, size: Option<u64>, site: &Site) -> Result<Place, Error> {
    let path = empty_dir_path(&site.folder, name);
    create(&path, 0o777)?;
    if memory && site.may_mount {
        mount_on(&path, size).map_err(Error::Memory)?;
    }
    if let Some(group) = site.group {
        // What was there before is the pod's own work.
        hand_over(&path, group, Change::OnRootMismatch).map_err(Error::Own)?;
    }
    Ok(Place { path, on_disk: memory && !site.may_mount })
}

/// The types of the Kubernetes docs, "Volumes: hostPath".
fn host_path(source: &HostPathVolumeSource) -> Result<(), Error> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => create(path, 0o755)?,
        "FileOrCreate" if !path.exists() => create_file(path)?,
        _ => {}
    }
    let found = fs::metadata(path).map(|found| found.file_type()).ok();
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    let (fits, wanted) = match kind {
        // As container runtimes do for a mount's source that is not there.
        "" if found.is_none() => return create(path, 0o755),
        "" => (true, ""),
        "DirectoryOrCreate" | "Directory" => (is(fs::FileType::is_dir), "a directory"),
        "FileOrCreate" | "File" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        _ => return Err(Error::Kind { kind: kind.to_owned() }),
    };
    if fits { Ok(()) } else { Err(Error::Type { path: path.to_owned(), wanted }) }
}

fn create(path: &Path, mode: u32) -> Result<(), Error> {
    let error = |source| Error::Create { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(error)?;
    // Not by the builder: the process' umask would take bits away.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(error)
}

fn create_file(path: &Path) -> Result<(), Error> {
    let error = |source| Error::Create { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        create(folder, 0o755)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(error)?;
    fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::atomic::Content;

    fn site(root: &Path) -> Site {
        Site {
            folder: root.join("volumes"),
            memory: root.join("memory"),
            may_mount: false,
            group: None,
            change: Change::Always,
        }
    }

    #[test]
    fn an_empty_dir_is_made_once_open_to_every_user_and_keeps_its_content() {
        let root = tempfile::tempdir().unwrap();
        let source = Source::Empty { memory: false, size: None };
        let path = set_up("data", &source, &site(root.path())).unwrap().path;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        assert_eq!(set_up("data", &source, &site(root.path())).unwrap().path, path);
        assert!(path.join("kept").exists());
    }

    #[test]
    fn an_empty_dir_in_memory_without_mounts_says_that_it_is_on_disk() {
        let root = tempfile::tempdir().unwrap();
        let source = Source::Empty { memory: true, size: Some(1) };
        assert!(set_up("data", &source, &site(root.path())).unwrap().on_disk);
    }

    #[test]
    fn a_group_gets_what_is_made_for_it() {
        let root = tempfile::tempdir().unwrap();
        let id = rustix::process::getegid().as_raw();
        let site = Site { group: Some(Group { id }), ..site(root.path()) };
        let source = Source::Empty { memory: false, size: None };
        let path = set_up("data", &source, &site).unwrap().path;
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o2777);
    }

    #[test]
    fn secret_files_lie_in_the_folder_that_is_in_memory_and_others_do_not() {
        let root = tempfile::tempdir().unwrap();
        let content = Content { data: b"x".to_vec(), mode: 0o644, user: None };
        let files = Files::from([("key".to_owned(), content)]);
        for (secret, kind, folder) in [
            (true, "secret", "memory/v"),
            (false, "configmap", "volumes/kubernetes.io~configmap/v"),
        ] {
            let source = Source::Files { kind, files: files.clone(), secret };
            let place = set_up("v", &source, &site(root.path())).unwrap();
            assert_eq!(place.path, root.path().join(folder));
            assert_eq!(fs::read_to_string(place.path.join("key")).unwrap(), "x");
        }
    }

    #[test]
    fn every_host_path_type_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("f"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("s")).unwrap();
        for (name, kind, fits) in [
            ("d", "", true),
            ("f", "", true),
            ("d", "Directory", true),
            ("f", "Directory", false),
            ("none", "Directory", false),
            ("f", "File", true),
            ("d", "File", false),
            ("none", "File", false),
            ("s", "Socket", true),
            ("f", "Socket", false),
            ("f", "CharDevice", false),
            ("f", "BlockDevice", false),
            ("f", "DirectoryOrCreate", false),
            ("d", "FileOrCreate", false),
            ("made/deep", "DirectoryOrCreate", true),
            ("made/file", "FileOrCreate", true),
            ("absent", "", true),
            ("f", "Nonsense", false),
        ] {
            let path = at(name).to_str().unwrap().to_owned();
            let source = HostPathVolumeSource { path, type_: Some(kind.to_owned()) };
            let made = set_up("h", &Source::Host(source), &site(root.path()));
            assert_eq!(made.is_ok(), fits, "{name} {kind}: {made:?}");
            assert!(!fits || at(name).exists());
        }
        assert!(!at("none").exists());
        let null = HostPathVolumeSource {
            path: "/dev/null".to_owned(),
            type_: Some("CharDevice".to_owned()),
        };
        assert!(set_up("h", &Source::Host(null), &site(root.path())).is_ok());
    }

    #[test]
    fn a_folder_of_the_nodes_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let source = Source::Folder(root.path().join("none"));
        let error = set_up("v", &source, &site(root.path())).unwrap_err().to_string();
        assert!(error.ends_with("none does not exist"), "{error}");
    }
}
