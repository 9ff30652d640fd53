//! The system calls that are left: what Wasmtime, the WASI host and the control thread do, and nothing else.
//!
//! All others fail with ENOSYS, as on a kernel that never had them, which the C library knows how to do without. Whatever
//! makes code, runs another program, looks into another process or changes what this process is, is among them.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use super::JailError;

/// Whether a guest may have sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// None but those that the process has.
    None,
    /// Of the internet protocols.
    Internet,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters the calls of all threads. False where the kernel has no filters.
pub(super) fn seal(sockets: Sockets) -> Result<bool, JailError> {
    let program = program(sockets).map_err(|error| JailError::Seccomp(error.into()))?;
    match apply_filter_all_threads(&program) {
        Ok(()) => Ok(true),
        Err(Error::Seccomp(error) | Error::Prctl(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(JailError::Seccomp(error)),
    }
}

fn program(sockets: Sockets) -> Result<BpfProgram, BackendError> {
    let mut rules: Rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(guarded()?);
    if sockets == Sockets::Internet {
        rules.extend(SOCKET_CALLS.iter().map(|call| (*call, Vec::new())));
        rules.insert(libc::SYS_socket, internet()?);
    }
    let refuse = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()
}

/// Calls that are allowed with some arguments only.
fn guarded() -> Result<Rules, BackendError> {
    let no_code = || rule(2, SeccompCmpOp::MaskedEq(wide(libc::PROT_EXEC)), 0);
    // A mapping that other processes could see change, or that grows by itself, is none of Wasmtime's.
    let private = SeccompCondition::new(
        3,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(wide(libc::MAP_TYPE | libc::MAP_GROWSDOWN)),
        wide(libc::MAP_PRIVATE),
    )?;
    let no_exec = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(wide(libc::PROT_EXEC)),
        0,
    )?;
    let thread = wide(libc::CLONE_THREAD);
    let myself = i32::try_from(std::process::id()).unwrap_or(0);
    Ok(Rules::from([
        (libc::SYS_mmap, vec![SeccompRule::new(vec![no_exec, private])?]),
        (libc::SYS_mprotect, vec![no_code()?]),
        (libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?]),
        (libc::SYS_ioctl, controls()?),
        (libc::SYS_tgkill, one_of(0, &[myself])?),
        // musl's raise(3), and so abort(3), which goes on with an instruction that faults where this is refused: of the
        // main thread alone, whose number is the process's. A thread's could be another process's by then.
        (libc::SYS_tkill, one_of(0, &[myself])?),
        // Of its others, F_SETOWN and F_SETSIG send any signal to any process of the same user.
        (libc::SYS_fcntl, one_of(1, DESCRIPTOR)?),
    ]))
}

/// What is asked of a descriptor by ioctl(2).
fn controls() -> Result<Vec<SeccompRule>, BackendError> {
    /// Which pages of this process were written (`linux/fs.h`): Wasmtime asks it of `/proc/self/pagemap`, which it has open
    /// for programs that answer requests.
    const PAGEMAP_SCAN: u64 = 0xc060_6610;
    let requests: Vec<_> =
        [libc::FIONBIO, libc::FIONREAD].map(|request| i32::try_from(request).unwrap_or(0)).into();
    let mut rules = one_of(1, &requests)?;
    rules.push(rule(1, SeccompCmpOp::Eq, PAGEMAP_SCAN)?);
    Ok(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

/// Sockets of TCP and UDP: asking for any other protocol would have the kernel load its code.
fn internet() -> Result<Vec<SeccompRule>, BackendError> {
    const TYPE: u64 = 0xf;
    let condition = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, wide(value))
    };
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in
            [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)]
        {
            for protocol in [0, protocol] {
                rules.push(SeccompRule::new(vec![
                    condition(0, SeccompCmpOp::Eq, family)?,
                    condition(1, SeccompCmpOp::MaskedEq(TYPE), kind)?,
                    condition(2, SeccompCmpOp::Eq, protocol)?,
                ])?);
            }
        }
    }
    Ok(rules)
}

fn one_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|value| rule(argument, SeccompCmpOp::Eq, wide(*value))).collect()
}

/// An argument of a call. All that is compared here is positive.
fn wide(value: i32) -> u64 {
    u64::from(value.unsigned_abs())
}

/// Allowed whatever their arguments.
const CALLS: &[i64] = &[
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: of this process. clone3 hides its arguments, and without it the C library takes clone.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Traps of the guest are signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // What is open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_getdents64,
    // Files below a folder that is open.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    RENAMEAT,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_utimensat,
    // The control socket's connections.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    // Calls that older architectures have beside their successors.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What may be done with a descriptor (fcntl(2)): copies of it, and its flags.
const DESCRIPTOR: &[i32] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
];

/// RISC-V has only its successor.
#[cfg(not(target_arch = "riscv64"))]
const RENAMEAT: i64 = libc::SYS_renameat;
#[cfg(target_arch = "riscv64")]
const RENAMEAT: i64 = libc::SYS_renameat2;

/// What sockets of the guest's own need beside the control socket's.
const SOCKET_CALLS: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];
