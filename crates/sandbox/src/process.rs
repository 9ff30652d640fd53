//! The process as the kernel and the agent see it.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;

/// Leaves what the agent and its terminal belong to. Called before any other thread exists: threads inherit this.
///
/// The sandbox must live on when the agent is interrupted, stopped by its service manager or dies; it ends with its
/// guest, or by SIGKILL. Blocked signals stay pending for ever, which is as good as ignored. SIGPIPE is ignored by
/// Rust's runtime already.
pub(crate) fn detach() -> io::Result<()> {
    match rustix::process::setsid() {
        // EPERM: the agent has made this process the leader of a group of its own.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    Ok(signals.thread_block()?)
}

/// Closes what whoever started the agent has left open in it, and so in its children: all but the standard three. Called
/// before anything else is opened.
pub(crate) fn close_inherited() {
    const FIRST: libc::c_uint = 3;
    #[expect(
        unsafe_code,
        reason = "no library closes descriptors that nobody here owns, and musl has not even the call"
    )]
    // SAFETY: this program has opened nothing yet, so that nobody in it uses what is closed.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if closed != 0 {
        diagnose(format_args!("inherited files stay open: {}", io::Error::last_os_error()));
    }
}

/// Names the process in the process list by the beginning of its container's id: forks have the zygote's command line.
pub(crate) fn name(id: &str) {
    let name = format!("nodule-{}", id.get(..8).unwrap_or_default());
    // It is for people: nothing is lost without it.
    _ = CString::new(name).map(|name| rustix::thread::set_name(&name));
}

/// The socket that the agent has bound and left on file descriptor 0.
pub(crate) fn listener() -> io::Result<UnixListener> {
    let stdin = io::stdin();
    if !matches!(socket_acceptconn(&stdin), Ok(true)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "file descriptor 0 is no listening socket",
        ));
    }
    Ok(UnixListener::from(stdin.as_fd().try_clone_to_owned()?))
}

/// Now, in Unix milliseconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The longest that the diagnostics of a process become, in bytes: who makes it complain shall not fill the disk.
const DIAGNOSTICS: u64 = 64 << 10;

/// A line for whoever looks after the node, in `sandbox.log`. When even that cannot be written nobody can be told.
pub(crate) fn diagnose(line: impl std::fmt::Display) {
    let mut errors = io::stderr().lock();
    if is_full(errors.as_fd()) {
        // It is written at its end, wherever that is.
        _ = rustix::fs::ftruncate(errors.as_fd(), 0);
        _ = writeln!(errors, "nodule-sandbox: what was said before this is not kept");
    }
    _ = writeln!(errors, "nodule-sandbox: {}", brief(&line.to_string()));
}

/// Has panics told as everything else is.
pub(crate) fn diagnose_panics() {
    std::panic::set_hook(Box::new(|panic| diagnose(panic)));
}

/// Whether the diagnostics are a file that has become too long.
fn is_full(errors: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(errors).is_ok_and(|file| {
        let is_file = FileType::from_raw_mode(file.st_mode) == FileType::RegularFile;
        is_file && u64::try_from(file.st_size).unwrap_or(u64::MAX) > DIAGNOSTICS
    })
}

/// The beginning of a line that is too long to be told whole.
fn brief(line: &str) -> &str {
    const LONGEST: usize = 8 << 10;
    line.get(..line.floor_char_boundary(LONGEST)).unwrap_or(line)
}
