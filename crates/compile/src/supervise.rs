//! Starts the worker and tells how it ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;

use crate::input::InputError;
use crate::{BAD_INPUT, Job};

/// What Rust's runtime says before it aborts a process that is refused memory.
const OUT_OF_MEMORY: &str = "memory allocation of";

/// Compiles in a process of its own. What the worker says is passed on; what it can no longer say is said here.
pub(crate) fn compile(job: &Job) -> Result<String> {
    let Output { status, stdout, stderr } = work(job).context("start the worker")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if status.success() { Ok(text(&stdout)) } else { Err(failure(job, status, text(&stderr))) }
}

fn work(job: &Job) -> io::Result<Output> {
    Command::new(std::env::current_exe()?)
        .arg("work")
        .args([&job.input, &job.output])
        .args(["--max-memory-mib", &job.max_memory_mib.to_string()])
        .args(["--max-seconds", &job.max_seconds.to_string()])
        .output()
}

fn failure(job: &Job, status: ExitStatus, complaint: String) -> anyhow::Error {
    if status.code() == Some(i32::from(BAD_INPUT)) {
        return InputError::Told(complaint).into();
    }
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => InputError::Time { seconds: job.max_seconds }.into(),
        Some(Signal::ABORT) if complaint.contains(OUT_OF_MEMORY) => {
            InputError::Memory { mib: job.max_memory_mib }.into()
        }
        Some(signal) => anyhow!("the compiler died of signal {}: {complaint}", signal.as_raw()),
        None => anyhow!("{complaint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end_has_its_words() {
        let job =
            Job { input: "in".into(), output: "out".into(), max_memory_mib: 64, max_seconds: 3 };
        let refused = "memory allocation of 16 bytes failed";
        for (raw, complaint, bad, words) in [
            (2 << 8, "no _start", true, "no _start"),
            (1 << 8, "write out", false, "write out"),
            (24, "", true, "the 3 s of CPU time"),
            (6, refused, true, "the 64 MiB of memory"),
            (
                6,
                "thread 'main' panicked at x.rs",
                false,
                "signal 6: thread 'main' panicked at x.rs",
            ),
            (9, "", false, "signal 9"),
        ] {
            let error = failure(&job, ExitStatus::from_raw(raw), complaint.into());
            assert_eq!(error.is::<InputError>(), bad, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
