//! Which images pods use, by what is on disk: no agent need run, and pods outlive theirs.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::record::{self, Folder};

/// Records that cannot be read: what their pods use nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("find out which images pods use")]
pub struct InUseError(#[source] record::Error);

/// The images of all pods below an agent's root folder, each `…@sha256:…`: of every run that is recorded, those that have
/// ended too, as they may run again. A run is recorded before it begins. Blocks.
///
/// # Errors
/// When a pod's record cannot be read.
pub fn images_in_use(root: &Path) -> Result<BTreeSet<String>, InUseError> {
    let mut used = BTreeSet::new();
    for (_, record) in Folder::all(root).map_err(InUseError)? {
        match record {
            Ok(record) => {
                let runs = record.containers.into_values().filter_map(|history| history.run);
                used.extend(runs.map(|run| run.image_id));
            }
            // A pod that is about to be gone, or has not been begun.
            Err(record::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            }
            Err(error) => return Err(InUseError(error)),
        }
    }
    used.remove("");
    Ok(used)
}
