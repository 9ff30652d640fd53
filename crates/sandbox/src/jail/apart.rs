//! A mount namespace of the process's own: where only root may have one, within a user namespace.

use std::path::Path;
use std::{fs, io};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getegid, geteuid};

use super::stage::change;

/// Whether the process has mounts of its own now.
pub(super) enum Apart {
    /// It has.
    Yes,
    /// It may not, and is what it was.
    Refused(io::Error),
}

/// Gives the process mounts of its own, into which the host's still come but from which none go. Called before there is
/// another thread. After an error the process is in a namespace that is half made, and good for nothing.
pub(super) fn separate() -> io::Result<Apart> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(Errno::EPERM) => match rehearse()? {
            Ok(()) => become_root_of_a_namespace()?,
            Err(refused) => return Ok(Apart::Refused(refused)),
        },
        Err(error) => return Ok(Apart::Refused(error.into())),
    }
    change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
    Ok(Apart::Yes)
}

/// The process has its own user, and all rights over mounts that nobody else sees.
fn become_root_of_a_namespace() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Tries it in a process that is for nothing else: a kernel may let a user have a namespace and refuse it the rights in
/// there (AppArmor's `apparmor_restrict_unprivileged_userns`), and there is no way back. The inner error is the trial's.
fn rehearse() -> io::Result<io::Result<()>> {
    // SAFETY: this process has one thread, so that the new one is whole.
    #[expect(unsafe_code, reason = "what cannot be undone is tried in another process")]
    match unsafe { fork() }? {
        ForkResult::Child => {
            let tried = become_root_of_a_namespace()
                .and_then(|()| change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SLAVE));
            let code = tried.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EPERM));
            end(code)
        }
        ForkResult::Parent { child } => loop {
            return match waitpid(child, None) {
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::Exited(_, 0)) => Ok(Ok(())),
                Ok(WaitStatus::Exited(_, code)) => Ok(Err(io::Error::from_raw_os_error(code))),
                Ok(_) => Ok(Err(io::ErrorKind::PermissionDenied.into())),
                Err(error) => Err(error.into()),
            };
        },
    }
}

/// Ends this process and does nothing else: what the other one would do at its end is not done twice.
#[expect(unsafe_code, reason = "no library ends a process without what is done at exit")]
fn end(code: i32) -> ! {
    // SAFETY: it touches no memory.
    unsafe { libc::_exit(code) }
}
