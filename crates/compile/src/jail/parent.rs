//! What a process has of its parent.

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Ends this process with its parent, which is `parent`: it may have ended before this was said. To be said again
/// whenever the user has changed (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn bind(parent: Option<u32>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let actual = getppid().map(|parent| parent.as_raw_pid().unsigned_abs());
    match parent {
        Some(parent) if actual != Some(parent) => {
            Err(io::Error::other("it has ended: this process has no one to work for"))
        }
        _ => Ok(()),
    }
}

/// Closes all descriptors but the standard ones.
#[expect(unsafe_code, reason = "no library has close_range without a folder of open files")]
pub(super) fn close_rest() -> io::Result<()> {
    // SAFETY: called before this process opens anything of its own, so that no descriptor is somebody's.
    match unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
