//! Limits of the process itself, which stay when everything else has failed.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::JailError;

/// Descriptors: what a busy server has open. WASI's own tables are bounded below that.
const DESCRIPTORS: u64 = 4096;

/// Sets the limits, soft and hard. The address space is none of them: a guest's memory reserves 4 GiB of it.
pub(super) fn set() -> Result<(), JailError> {
    limit("core dumps", Resource::Core, 0)?;
    limit("locked memory", Resource::Memlock, 0)?;
    limit("message queues", Resource::Msgqueue, 0)?;
    let open = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    limit("descriptors without end", Resource::Nofile, DESCRIPTORS.min(open))
}

fn limit(what: &'static str, resource: Resource, most: u64) -> Result<(), JailError> {
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        .map_err(|error| JailError::GiveUp { what, source: error.into() })
}
