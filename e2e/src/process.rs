//! Processes named so that no other one is ever hit: a pid with the time at which it started.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process for ever: pids are used again, a pid with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process's id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)).
    pub started: u64,
}

impl Process {
    /// The process that has this id now; none if there is none, or only its exit code is left.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything, parentheses too.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    /// Whether it still runs.
    pub fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends the signal and waits for the end; false if it still runs after that time.
    pub fn end(self, signal: Signal, patience: Duration) -> Result<bool> {
        let Some(handle) = self.handle()? else { return Ok(true) };
        if let Err(error) = pidfd_send_signal(&handle, signal)
            && error != rustix::io::Errno::SRCH
        {
            return Err(error).with_context(|| format!("signal to process {}", self.pid));
        }
        has_ended(&handle, patience)
    }

    /// Waits for the end; false if it still runs after that time.
    pub fn wait(self, patience: Duration) -> Result<bool> {
        match self.handle()? {
            Some(handle) => has_ended(&handle, patience),
            None => Ok(true),
        }
    }

    /// None if it has ended.
    fn handle(self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(i32::try_from(self.pid)?) else { return Ok(None) };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
        // The handle is of whoever has the pid now; only from here on can it not change.
        Ok(self.runs().then_some(handle))
    }
}

fn has_ended(handle: &OwnedFd, patience: Duration) -> Result<bool> {
    let limit = Timespec::try_from(patience)?;
    Ok(poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&limit))? > 0)
}

/// The running processes whose program has one of these names and whose command line names a path in this folder.
pub fn inside(folder: &Path, names: &[&str]) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_inside(*pid, folder, names)).filter_map(Process::of).collect()
}

fn is_inside(pid: u32, folder: &Path, names: &[&str]) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The kernel says so of a program that was built anew since it started.
    let name = name.trim_end_matches(" (deleted)");
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    names.contains(&name) && line.split(|byte| *byte == 0).any(|word| names_path(word, folder))
}

fn names_path(word: &[u8], folder: &Path) -> bool {
    let Ok(word) = std::str::from_utf8(word) else { return false };
    let value = word.split_once('=').map_or(word, |(_, value)| value);
    Path::new(value).starts_with(folder)
}

/// Those of them that have this name in the process list (proc_pid_comm(5)), or not.
pub fn named(processes: Vec<Process>, name: &str, wanted: bool) -> Vec<Process> {
    let is = |process: &Process| {
        let comm = fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
        (comm.trim_end() == name) == wanted
    };
    processes.into_iter().filter(is).collect()
}

/// Kills them and waits until none runs.
pub fn kill(processes: &[Process]) -> Result<()> {
    for process in processes {
        process.end(Signal::KILL, Duration::from_secs(30))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_with_another_start_time_does_not() {
        let this = Process::of(std::process::id()).unwrap();
        assert!(this.runs());
        let other = Process { started: this.started + 1, ..this };
        assert!(!other.runs());
        assert!(other.end(Signal::KILL, Duration::ZERO).unwrap(), "must not hit this process");
    }

    #[test]
    fn a_killed_process_is_seen_to_end() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.end(Signal::KILL, Duration::from_secs(30)).unwrap());
        assert!(!process.runs());
        child.wait().unwrap();
    }

    #[test]
    fn a_path_is_found_as_a_word_and_as_a_flags_value() {
        let folder = Path::new("/tmp/a");
        assert!(names_path(b"/tmp/a/b", folder));
        assert!(names_path(b"--root-dir=/tmp/a", folder));
        assert!(!names_path(b"--root-dir=/tmp/ab", folder));
    }
}
