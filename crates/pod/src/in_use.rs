//! Which images pods use, by what is on disk: no agent need run, and pods outlive theirs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::record::{self, Folder, Record};

/// Records that cannot be read: what their pods use nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("find out which images pods use")]
pub struct InUseError(#[source] record::Error);

/// The images of all pods below an agent's root folder, each `…@sha256:…`: of every run that is recorded, of those that have
/// ended too, as they may run again, and of every volume. Both are recorded before they are used. Blocks.
///
/// # Errors
/// When a pod's record cannot be read.
pub fn images_in_use(root: &Path) -> Result<BTreeSet<String>, InUseError> {
    in_use(root, |_| true)
}

/// The same of those pods whose record is meant.
pub(crate) fn in_use(
    root: &Path,
    is_meant: impl Fn(&Record) -> bool,
) -> Result<BTreeSet<String>, InUseError> {
    let mut used = BTreeSet::new();
    for (_, record) in Folder::all(root).map_err(InUseError)? {
        match record {
            Ok(record) if is_meant(&record) => {
                let runs = record.containers.into_values().filter_map(|history| history.run);
                used.extend(runs.map(|run| run.image_id).chain(record.images.into_values()));
            }
            Ok(_) => {}
            // A pod that is about to be gone, or has not been begun.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(InUseError(error)),
        }
    }
    used.remove("");
    Ok(used)
}
