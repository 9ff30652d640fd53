//! Opens what the worker may use, starts it, and waits for its end.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::ending::failure;
use crate::output::Output;
use crate::report::Report;
use crate::{Job, Limits, jail};

/// What is read of the worker's words: it may have become somebody else's.
const WORDS: u64 = 64 * 1024;

/// Compiles in a process of its own. What the worker says is passed on; what it can no longer say is said here.
pub(crate) fn compile(job: &Job) -> Result<String> {
    jail::bind(job.limits.parent).context("watch the parent process")?;
    let input = File::open(&job.input).with_context(|| format!("read {}", job.input.display()))?;
    let writing = || format!("write {}", job.output.display());
    let output = Output::create(&job.output).with_context(writing)?;
    let child = start(&job.limits, input, output.file().with_context(writing)?);
    let (status, words) = child.and_then(wait).context("start the worker")?;
    if !status.success() {
        return Err(failure(&job.limits, status, words));
    }
    let mut report: Report = serde_json::from_str(&words).context("read the worker's report")?;
    report.size = output.keep().with_context(writing)?;
    Ok(serde_json::to_string(&report)?)
}

fn start(limits: &Limits, input: File, output: File) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("work")
        .args(["--max-memory-mib", &limits.max_memory_mib.to_string()])
        .args(["--max-seconds", &limits.max_seconds.to_string()])
        .args(["--max-output-mib", &limits.max_output_mib.to_string()])
        .args(["--user", &limits.user.to_string()])
        .args(["--parent", &std::process::id().to_string()])
        .env_clear()
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
}

fn wait(mut child: Child) -> io::Result<(std::process::ExitStatus, String)> {
    let mut words = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        // Dropped at the limit: one that goes on talking is ended by SIGPIPE, or by its limit of time.
        pipe.take(WORDS).read_to_end(&mut words)?;
    }
    Ok((child.wait()?, String::from_utf8_lossy(&words).trim().to_owned()))
}
