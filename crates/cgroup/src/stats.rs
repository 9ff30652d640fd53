//! What a cgroup has used, from the files that the kernel's `cgroup-v2.rst` describes.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Group};

/// What a cgroup and all below it have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since the cgroup was made.
    pub cpu: Duration,
    /// Periods of the quota in which something wanted to run.
    pub periods: u64,
    /// Those of them in which the quota was used up.
    pub throttled_periods: u64,
    /// How long that kept it from running.
    pub throttled: Duration,
    /// Bytes in use, page cache included.
    pub memory: u64,
    /// Bytes that could not be given back at once, as cAdvisor counts them: in use, less `inactive_file`.
    pub working_set: u64,
    /// Bytes in use when it was most.
    pub peak: u64,
    /// Bytes of memory that no file is behind.
    pub rss: u64,
    /// Bytes of page cache.
    pub cache: u64,
    /// Page faults since the cgroup was made.
    pub page_faults: u64,
    /// Those of them that waited for a disk.
    pub major_page_faults: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// How often a container was killed because its memory, or its pod's, was used up. Of a pod: of all its containers.
    ///
    /// This is `oom_group_kill`. Each container is killed as one, and Linux 6.1 counts the first victim twice in `oom_kill`.
    pub oom_kills: u64,
}

impl Stats {
    pub(crate) fn read(group: &Group) -> Result<Self, Error> {
        let cpu = Table::read(group, "cpu.stat")?;
        let memory = Table::read(group, "memory.stat")?;
        let in_use = Table::read(group, "memory.current")?.number()?;
        Ok(Self {
            cpu: cpu.micros("usage_usec")?,
            periods: cpu.field("nr_periods")?,
            throttled_periods: cpu.field("nr_throttled")?,
            throttled: cpu.micros("throttled_usec")?,
            memory: in_use,
            working_set: in_use.saturating_sub(memory.field("inactive_file")?),
            peak: Table::read(group, "memory.peak")?.number()?,
            rss: memory.field("anon")?,
            cache: memory.field("file")?,
            page_faults: memory.field("pgfault")?,
            major_page_faults: memory.field("pgmajfault")?,
            pids: Table::read(group, "pids.current")?.number()?,
            oom_kills: Table::read(group, "memory.events")?.field("oom_group_kill")?,
        })
    }
}

/// The content of one file: a number, or a line for each field ("flat keyed").
struct Table {
    path: PathBuf,
    text: String,
}

impl Table {
    fn read(group: &Group, file: &str) -> Result<Self, Error> {
        Ok(Self { path: group.path().join(file), text: group.read(file)? })
    }

    fn number(&self) -> Result<u64, Error> {
        self.parse("itself", Some(self.text.trim_end()))
    }

    fn field(&self, name: &'static str) -> Result<u64, Error> {
        let mut fields = self.text.lines().filter_map(|line| line.split_once(' '));
        self.parse(name, fields.find(|(key, _)| *key == name).map(|(_, value)| value))
    }

    fn micros(&self, name: &'static str) -> Result<Duration, Error> {
        self.field(name).map(Duration::from_micros)
    }

    fn parse(&self, field: &'static str, text: Option<&str>) -> Result<u64, Error> {
        let number = text.and_then(|text| text.parse().ok());
        number.ok_or_else(|| Error::Parse { path: self.path.clone(), field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table { path: PathBuf::from("/c/memory.events"), text: text.to_owned() }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let events = table("low 0\noom 3\noom_kill 2\noom_group_kill 1\n");
        for (name, wanted) in [("low", 0), ("oom", 3), ("oom_kill", 2), ("oom_group_kill", 1)] {
            assert_eq!(events.field(name).unwrap(), wanted, "{name}");
        }
        assert_eq!(table("usage_usec 1500\n").micros("usage_usec").unwrap().as_micros(), 1500);
    }

    #[test]
    fn a_number_is_a_whole_file() {
        assert_eq!(table("4096\n").number().unwrap(), 4096);
        assert_eq!(table("18446744073709551615\n").number().unwrap(), u64::MAX);
    }

    #[test]
    fn what_is_no_number_is_named() {
        for text in ["", "oom", "oom x\n", "oom -1\n", "oom 1 2\n", "oom_kill 1\n"] {
            let error = table(text).field("oom").unwrap_err().to_string();
            assert_eq!(error, "/c/memory.events: no number for oom", "{text:?}");
        }
        assert!(table("max\n").number().is_err());
    }
}
