//! Which images pods use, by what is on disk: no agent need run, and pods outlive theirs.
//!
//! A record says it. Where it cannot be read, and where it is made anew and knows of a run no more than that there is one, the
//! file that the run's sandbox was started by says what that has open.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nodule_image::Images;
use nodule_sandbox_proto::CONTAINER;
use serde::Deserialize;

use crate::record::{self, Folder, Record};

/// What pods use cannot be told.
#[derive(Debug, thiserror::Error)]
#[error(
    "find out which images pods use: delete the pod of this folder, or remove the folder if there is no such pod"
)]
pub struct InUseError(#[source] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Pods(record::Error),
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("parse {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
}

/// What is read of a `container.json` of any release.
#[derive(Debug, Deserialize)]
struct Told {
    program: Program,
    mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
struct Program {
    cwasm: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Mount {
    host: PathBuf,
}

/// The images of all pods below an agent's root folder, each `…@sha256:…` or `sha256:…`: of every run that is recorded, of
/// those that have ended too, as they may run again, and of every volume. Both are recorded before they are used. Of a pod
/// without a record that can be read, those that its runs were started with. Blocks.
///
/// # Errors
/// When neither a pod's record nor the files of its runs can be read.
pub fn images_in_use(root: &Path, images: &Images) -> Result<BTreeSet<String>, InUseError> {
    in_use(root, images, |_| true)
}

/// The same of those pods whose record is meant, and of those that have none.
pub(crate) fn in_use(
    root: &Path,
    images: &Images,
    is_meant: impl Fn(&Record) -> bool,
) -> Result<BTreeSet<String>, InUseError> {
    let (mut used, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (folder, record) in Folder::all(root).map_err(|error| InUseError(Cause::Pods(error)))? {
        match record {
            Ok(record) if is_meant(&record) => {
                if is_made_anew(&record) {
                    paths.extend(opened(&folder).map_err(InUseError)?);
                }
                let runs = record.containers.into_values().filter_map(|history| history.run);
                used.extend(runs.map(|run| run.image_id).chain(record.images.into_values()));
            }
            Ok(_) => {}
            Err(_) => paths.extend(opened(&folder).map_err(InUseError)?),
        }
    }
    used.remove("");
    used.extend(images.owners(&paths));
    Ok(used)
}

/// Whether something runs of which the record does not know the image.
fn is_made_anew(record: &Record) -> bool {
    let mut runs = record.containers.values().filter_map(|history| history.run.as_ref());
    runs.any(|run| run.end.is_none() && run.image_id.is_empty())
}

/// What the sandboxes of a pod were told to open. A run that is about to be removed, or was never begun, has opened nothing.
fn opened(pod: &Folder) -> Result<BTreeSet<PathBuf>, Cause> {
    let mut paths = BTreeSet::new();
    for container in entries(&pod.containers())? {
        for run in entries(&container)? {
            let path = run.join(CONTAINER);
            let Some(text) = read(&path, fs::read(&path))? else { continue };
            let told: Told = serde_json::from_slice(&text)
                .map_err(|source| Cause::Parse { path: path.clone(), source })?;
            paths.insert(told.program.cwasm);
            paths.extend(told.mounts.into_iter().map(|mount| mount.host));
        }
    }
    Ok(paths)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Cause> {
    let entries = read(folder, fs::read_dir(folder))?.into_iter().flatten();
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>();
    Ok(read(folder, paths)?.unwrap_or_default())
}

/// None for what is not there.
fn read<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>, Cause> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(Cause::Read { path: path.to_owned(), source }),
    }
}
