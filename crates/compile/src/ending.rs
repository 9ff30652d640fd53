//! What the end of a worker that did not succeed means.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::anyhow;
use rustix::param::linux_hwcap;
use rustix::process::Signal;

use crate::input::InputError;
use crate::{BAD_INPUT, Limits};

/// What Rust's runtime says before it aborts a process that is refused memory.
const OUT_OF_MEMORY: &str = "memory allocation of";
/// What it says before a panic ends a process or a thread.
const PANIC: &str = "panicked at";
/// The exit code of a process whose main thread panicked.
const PANICKED: i32 = 101;

/// The error for a worker that ended with `status` after these `words`.
pub(crate) fn failure(limits: &Limits, status: ExitStatus, words: String) -> anyhow::Error {
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(code), _) if code == i32::from(BAD_INPUT) => InputError::Told(words).into(),
        (Some(PANICKED), _) if words.contains(PANIC) => crash(words),
        (Some(_), _) => anyhow!("{words}"),
        (_, Some(Signal::XCPU)) => InputError::Time { seconds: limits.max_seconds }.into(),
        (_, Some(Signal::XFSZ)) => InputError::Output { mib: limits.max_output_mib }.into(),
        (_, Some(Signal::ABORT)) if words.contains(OUT_OF_MEMORY) => {
            InputError::Memory { mib: limits.max_memory_mib }.into()
        }
        (_, Some(Signal::ABORT | Signal::SEGV | Signal::BUS | Signal::ILL | Signal::TRAP)) => {
            crash(words)
        }
        (_, Some(Signal::KILL)) => anyhow!(
            "the compiler was killed (SIGKILL): most likely this node had no memory left; it is tried again, give the \
             node more memory or lower the limit of compilations"
        ),
        (_, _) => anyhow!("the compiler was ended ({status}): {words}"),
    }
}

/// It will crash again, so it is the program's: whoever published it can build it otherwise.
fn crash(words: String) -> anyhow::Error {
    let words = if words.is_empty() { "it said nothing".to_owned() } else { words };
    if lacks_vectors(std::env::consts::ARCH, linux_hwcap().0) {
        InputError::NoVectors { words }.into()
    } else {
        InputError::Crash { words }.into()
    }
}

/// Whether this is a RISC-V CPU without vectors: `hwcap` has a bit for each extension of one letter (the kernel's
/// `arch/riscv/include/uapi/asm/hwcap.h`).
fn lacks_vectors(arch: &str, hwcap: usize) -> bool {
    arch == "riscv64" && hwcap & (1 << (b'v' - b'a')) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end_has_its_words() {
        let limits =
            Limits { max_memory_mib: 64, max_seconds: 3, max_output_mib: 5, user: 1, parent: None };
        let refused = "memory allocation of 16 bytes failed";
        let panic = "thread 'main' panicked at x.rs";
        for (raw, said, bad, words) in [
            (2 << 8, "no _start", true, "no _start"),
            (1 << 8, "become user 7", false, "become user 7"),
            (24, "", true, "the 3 s of CPU time"),
            (25, "", true, "more than the 5 MiB"),
            (6, refused, true, "the 64 MiB of memory"),
            (6, panic, true, "crashes on the program: thread 'main' panicked at x.rs"),
            (101 << 8, panic, true, "crashes on the program: thread 'main' panicked at x.rs"),
            (11, "", true, "crashes on the program: it said nothing"),
            (9, "", false, "this node had no memory left"),
            (15, "", false, "signal: 15"),
        ] {
            let error = failure(&limits, ExitStatus::from_raw(raw), said.into());
            assert_eq!(error.is::<InputError>(), bad, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn vectors_are_missed_on_risc_v_only() {
        let (imafdc, v) = (0x112d, 1 << 21);
        assert!(lacks_vectors("riscv64", imafdc));
        assert!(!lacks_vectors("riscv64", imafdc | v));
        assert!(!lacks_vectors("x86_64", imafdc));
    }
}
