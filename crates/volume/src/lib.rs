//! The volumes of pods: folders of the host that become a guest's preopened directories.
//!
//! [`prepare`] makes what a pod's volumes need and says where each lies; it may be called again at any time and finds what
//! is there. Here are `emptyDir` on disk and `hostPath`. It knows nothing of containers, images or the API server.
//!
//! What lies in a volume is a guest's work and so hostile: [`usage`] measures a folder and [`remove`] removes one, both by
//! descriptors, without recursion, never through a symbolic link and never into another mount.

mod beneath;
mod entry;
mod remove;
mod usage;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};

pub use beneath::{BeneathError, read};
pub use remove::{RemoveError, remove};
pub use usage::{Usage, usage};

/// The volume that the API server adds to every pod for its service account's token
/// (Kubernetes docs, "Managing Service Accounts: Bound service account token volume").
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Why a volume cannot be had. The Event's reason is `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kind of volume that this node does not have.
    #[error(
        "volume \"{volume}\": {kind} is not supported by this node; it has emptyDir and hostPath"
    )]
    Unsupported {
        /// The volume's name in the pod.
        volume: String,
        /// What it asks for.
        kind: String,
    },
    /// What lies at a hostPath is not what its type says.
    #[error("volume \"{volume}\": hostPath type check failed: {} is not a {wanted}", path.display())]
    Type {
        /// The volume's name in the pod.
        volume: String,
        /// The path on the host.
        path: PathBuf,
        /// The type that the pod asks for.
        wanted: String,
    },
    /// The host refused.
    #[error("volume \"{volume}\": create {}", path.display())]
    Create {
        /// The volume's name in the pod.
        volume: String,
        /// The path on the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the pod's own volumes below `folder` and checks the others. Returns the host path of each by name. The volume of
/// the service account's token is left out: a guest that needs no API server does without.
pub fn prepare(pod: &Pod, folder: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let wanted = volumes.filter(|volume| !is_token(volume));
    wanted.map(|volume| Ok((volume.name.clone(), place(volume, folder)?))).collect()
}

/// Whether a mount of this name is one that [`prepare`] leaves out.
pub fn is_left_out(name: &str) -> bool {
    name.starts_with(TOKEN_VOLUME)
}

/// Where the `emptyDir` of this name lies below a pod's folder of volumes: the kubelet's layout, which tools that measure
/// volumes know.
pub fn empty_dir_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("kubernetes.io~empty-dir").join(name)
}

fn is_token(volume: &Volume) -> bool {
    is_left_out(&volume.name) && volume.projected.is_some()
}

fn place(volume: &Volume, folder: &Path) -> Result<PathBuf, Error> {
    let name = &volume.name;
    match (&volume.empty_dir, &volume.host_path) {
        (Some(source), _) => empty_dir(name, source, folder),
        (None, Some(source)) => host_path(name, source),
        // The API server gives a volume that names no source an emptyDir, so there is one here.
        (None, None) => Err(Error::Unsupported { volume: name.clone(), kind: kind(volume) }),
    }
}

/// The name of the one source that is set.
fn kind(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let set = fields.as_object().into_iter().flat_map(|fields| fields.keys());
    set.filter(|key| *key != "name").map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn empty_dir(name: &str, source: &EmptyDirVolumeSource, folder: &Path) -> Result<PathBuf, Error> {
    if let Some(medium) = source.medium.as_deref().filter(|medium| !medium.is_empty()) {
        let kind = format!("emptyDir with medium {medium}");
        return Err(Error::Unsupported { volume: name.to_owned(), kind });
    }
    let path = empty_dir_path(folder, name);
    create(name, &path, 0o777)?;
    Ok(path)
}

/// The types of the Kubernetes docs, "Volumes: hostPath".
fn host_path(name: &str, source: &HostPathVolumeSource) -> Result<PathBuf, Error> {
    let path = PathBuf::from(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    match wanted {
        "DirectoryOrCreate" if !path.exists() => create(name, &path, 0o755)?,
        "FileOrCreate" if !path.exists() => create_file(name, &path)?,
        _ => {}
    }
    let found = fs::metadata(&path).map(|found| found.file_type()).ok();
    let fits = match wanted {
        "" => true,
        "DirectoryOrCreate" | "Directory" => found.is_some_and(|kind| kind.is_dir()),
        "FileOrCreate" | "File" => found.is_some_and(|kind| kind.is_file()),
        "Socket" => found.is_some_and(|kind| kind.is_socket()),
        "CharDevice" => found.is_some_and(|kind| kind.is_char_device()),
        "BlockDevice" => found.is_some_and(|kind| kind.is_block_device()),
        _ => false,
    };
    if !fits {
        return Err(Error::Type { volume: name.to_owned(), path, wanted: wanted.to_owned() });
    }
    // As container runtimes do for a mount's source that is not there.
    if found.is_none() {
        create(name, &path, 0o755)?;
    }
    Ok(path)
}

fn create(volume: &str, path: &Path, mode: u32) -> Result<(), Error> {
    let error = |source| Error::Create { volume: volume.to_owned(), path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(error)?;
    // Not by the builder: the process' umask would take bits away.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(error)
}

fn create_file(volume: &str, path: &Path) -> Result<(), Error> {
    let error = |source| Error::Create { volume: volume.to_owned(), path: path.to_owned(), source };
    fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(error)?;
    fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(error)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, ProjectedVolumeSource, SecretVolumeSource};

    use super::*;

    fn pod(volumes: Vec<Volume>) -> Pod {
        Pod {
            spec: Some(PodSpec { volumes: Some(volumes), ..PodSpec::default() }),
            ..Pod::default()
        }
    }

    fn named(name: &str) -> Volume {
        Volume { name: name.to_owned(), ..Volume::default() }
    }

    fn host(path: &Path, kind: &str) -> Volume {
        let source = HostPathVolumeSource {
            path: path.to_str().unwrap().to_owned(),
            type_: (!kind.is_empty()).then(|| kind.to_owned()),
        };
        Volume { host_path: Some(source), ..named("h") }
    }

    #[test]
    fn an_empty_dir_is_made_once_open_to_every_uid_and_keeps_its_content() {
        let root = tempfile::tempdir().unwrap();
        let pod =
            pod(vec![Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..named("data") }]);
        let path = prepare(&pod, root.path()).unwrap()["data"].clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        assert_eq!(prepare(&pod, root.path()).unwrap()["data"], path);
        assert!(path.join("kept").exists());
    }

    #[test]
    fn every_host_path_type_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file, none) =
            (root.path().join("d"), root.path().join("f"), root.path().join("none"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        for (path, kind, fits) in [
            (&folder, "", true),
            (&file, "", true),
            (&folder, "Directory", true),
            (&file, "Directory", false),
            (&none, "Directory", false),
            (&file, "File", true),
            (&folder, "File", false),
            (&none, "File", false),
            (&file, "Socket", false),
            (&file, "CharDevice", false),
            (&file, "BlockDevice", false),
            (&file, "DirectoryOrCreate", false),
            (&folder, "FileOrCreate", false),
            (&root.path().join("made/deep"), "DirectoryOrCreate", true),
            (&root.path().join("made/file"), "FileOrCreate", true),
            (&root.path().join("absent"), "", true),
        ] {
            let made = prepare(&pod(vec![host(path, kind)]), root.path());
            assert_eq!(made.is_ok(), fits, "{} {kind}: {made:?}", path.display());
            assert!(!fits || path.exists());
        }
        assert!(!none.exists());
    }

    #[test]
    fn a_volume_that_is_not_to_be_had_is_named_and_the_token_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let secret = Volume { secret: Some(SecretVolumeSource::default()), ..named("keys") };
        let error = prepare(&pod(vec![secret]), root.path()).unwrap_err().to_string();
        assert!(error.starts_with("volume \"keys\": secret is not supported"), "{error}");
        let token = Volume {
            projected: Some(ProjectedVolumeSource::default()),
            ..named("kube-api-access-x1y2z")
        };
        assert!(prepare(&pod(vec![token]), root.path()).unwrap().is_empty());
    }
}
