//! Which process a sandbox is.

use std::io;

use serde::{Deserialize, Serialize};

use crate::Boot;

/// A process of this machine: `process.json`, which the sandbox writes once, before anything of the guest's is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// When that process began, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc_pid_stat(5)). With the
    /// process id it names one process of a boot: a process id alone is used again.
    pub start_ticks: u64,
    /// Since which boot those ticks count. None where whoever wrote this did not say: then only the ticks are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
}

impl Process {
    /// The calling process.
    pub fn here() -> io::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "/proc does not show this process")
        })?;
        Ok(Self { pid, start_ticks, boot: Boot::this() })
    }

    /// Process `pid` of this boot. One that has ended already has no ticks to see any more: it has zero.
    pub fn of(pid: u32) -> io::Result<Self> {
        let start_ticks = start_ticks(pid)?.unwrap_or_default();
        Ok(Self { pid, start_ticks, boot: Boot::this() })
    }

    /// Whether the machine was started anew since: then nothing of the process is left, whatever has its number.
    pub fn is_of_another_boot(&self) -> bool {
        self.boot.zip(Boot::this()).is_some_and(|(its, this)| its != this)
    }

    /// Whether the process is still there. Another process with the same id, and one that has ended and only waits for
    /// its parent, are not.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(!self.is_of_another_boot() && start_ticks(self.pid)? == Some(self.start_ticks))
    }
}

/// When process `pid` began, in clock ticks since boot; none where there is no such process or it has ended.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    parse_stat(&stat).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"))
    })
}

/// "No such process", the same on every architecture of Linux.
const ESRCH: i32 = 3;

/// The outer option is none when the line is not understood, the inner one when the process has ended. The command's
/// name, in parentheses, may itself hold blanks and parentheses, so that fields are counted from the last one.
fn parse_stat(stat: &str) -> Option<Option<u64>> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is field 3, so field 22 is the 19th after it.
    let ticks = fields.nth(18)?.parse().ok()?;
    Some((!matches!(state, "Z" | "X" | "x")).then_some(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_after_the_last_parenthesis() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 8 9";
        assert_eq!(parse_stat(stat), Some(Some(123_456)));
        assert_eq!(parse_stat(&stat.replace(") S", ") Z")), Some(None));
        assert_eq!(parse_stat("7 (a) S 1 2"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_is_not() {
        let here = Process::here().unwrap();
        assert!(here.is_alive().unwrap());
        assert!(!Process { start_ticks: here.start_ticks + 1, ..here }.is_alive().unwrap());
    }

    #[test]
    fn a_process_of_another_boot_is_not_alive_and_one_of_an_unknown_boot_may_be() {
        let here = Process::here().unwrap();
        let other = "00000000-0000-4000-8000-000000000000".parse().unwrap();
        let other = Process { boot: Some(other), ..here };
        assert!(other.is_of_another_boot() && !other.is_alive().unwrap());
        assert!(Process { boot: None, ..here }.is_alive().unwrap());
    }

    #[test]
    fn a_process_of_before_boots_were_told_is_read() {
        let old = r#"{"pid":7,"start_ticks":8}"#;
        let read: Process = serde_json::from_str(old).unwrap();
        assert_eq!(read, Process { pid: 7, start_ticks: 8, boot: None });
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let here = Process::here().unwrap();
        let text = serde_json::to_string(&here).unwrap();
        assert_eq!(serde_json::from_str::<Process>(&text).unwrap(), here);
        assert!(here.boot.is_some(), "{text}");
    }

    #[test]
    fn an_ended_process_is_not_alive_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("true")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The pipe ends when the process does, a little before it is a zombie.
        io::copy(child.stdout.as_mut().unwrap(), &mut io::sink()).unwrap();
        while start_ticks(child.id()).unwrap().is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(start_ticks(child.id()).unwrap(), None);
    }
}
