//! The system calls that are left: those that compute, read what is open and write what is open.
//!
//! All others fail with EPERM: whatever opens, connects, runs another program, starts a thread, looks into another
//! process or makes memory that can be executed.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
};

/// Filters the calls of all threads.
pub(super) fn seal() -> Result<(), Error> {
    apply_filter_all_threads(&program()?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<_, _> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let no_code = || masked(2, libc::PROT_EXEC, 0);
    // A mapping that others could see change, or that grows by itself, is none of the compiler's.
    let private = masked(3, libc::MAP_TYPE | libc::MAP_GROWSDOWN, libc::MAP_PRIVATE)?;
    let myself = i32::try_from(std::process::id()).unwrap_or(0);
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![no_code()?, private])?]);
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![no_code()?])?]);
    // How a process aborts.
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![masked(0, i32::MAX, myself)?])?]);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()
}

/// An argument whose bits of `mask` are `value`. All that is compared here is positive.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    let wide = |value: i32| u64::from(value.unsigned_abs());
    let equal = SeccompCmpOp::MaskedEq(wide(mask));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, wide(value))
}

/// Allowed whatever their arguments.
const CALLS: &[i64] = &[
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // The threads that there are.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // How a process ends by a signal of its own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    // What is open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_fstat,
    libc::SYS_close,
];
