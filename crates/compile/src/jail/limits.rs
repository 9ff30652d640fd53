//! Limits of the process, which the kernel keeps.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::JailError;
use crate::Limits;

/// The descriptors that there are: standard input, output and error.
const DESCRIPTORS: u64 = 3;

/// Sets what a compilation may use. The kernel counts memory that can be written: address space that is only reserved is
/// free.
pub(super) fn set(limits: &Limits) -> Result<(), JailError> {
    // Where memory ends, the compilation ends and no pod. A machine that does not know this chooses by itself.
    _ = fs::write("/proc/self/oom_score_adj", "1000");
    let mib = |number: u32| u64::from(number) << 20;
    both("core dumps", Resource::Core, 0)?;
    both("memory", Resource::Data, mib(limits.max_memory_mib))?;
    both("locked memory", Resource::Memlock, 0)?;
    both("message queues", Resource::Msgqueue, 0)?;
    both("the size of files", Resource::Fsize, mib(limits.max_output_mib))?;
    let seconds = u64::from(limits.max_seconds);
    // SIGXCPU at the one, SIGKILL at the other.
    limit("CPU time", Resource::Cpu, seconds, seconds + 1)
}

/// No descriptor more than there are.
pub(super) fn open_nothing() -> Result<(), JailError> {
    both("descriptors", Resource::Nofile, DESCRIPTORS)
}

fn both(what: &'static str, resource: Resource, most: u64) -> Result<(), JailError> {
    limit(what, resource, most, most)
}

fn limit(what: &'static str, resource: Resource, soft: u64, hard: u64) -> Result<(), JailError> {
    setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
        .map_err(|error| JailError::Limit { what, source: error.into() })
}
