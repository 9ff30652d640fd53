//! What the kernel says of memory, in KiB.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// A process's memory: the sums of its mappings (proc_pid_smaps(5)).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Its own pages, and its share of those that it has together with others.
    pub(super) pss: f64,
    /// Its own pages, clean and dirty.
    pub(super) private: f64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("the memory of process {pid}"))?;
        let private = field(&text, "Private_Clean")? + field(&text, "Private_Dirty")?;
        Ok(Self { pss: field(&text, "Pss")?, private })
    }
}

/// The kernel's own memory, of the whole machine (proc_meminfo(5)): it counts what anybody does meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kernel {
    pub(super) stacks: f64,
    pub(super) page_tables: f64,
    /// Objects that stay as long as they are used.
    pub(super) slab: f64,
    /// Objects of files that were looked at, given up when memory is short.
    pub(super) caches: f64,
    /// vmalloc(9) but the stacks, such as filters of system calls; and what there is for each CPU.
    pub(super) other: f64,
    pub(super) available: f64,
}

impl Kernel {
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let stacks = field(&text, "KernelStack")?;
        Ok(Self {
            stacks,
            page_tables: field(&text, "PageTables")?,
            slab: field(&text, "SUnreclaim")?,
            caches: field(&text, "SReclaimable")?,
            other: field(&text, "VmallocUsed")? - stacks + field(&text, "Percpu")?,
            available: field(&text, "MemAvailable")?,
        })
    }

    /// What there is more than `before`, for each of `count`.
    pub(super) fn each(self, before: Self, count: f64) -> Self {
        Self {
            stacks: (self.stacks - before.stacks) / count,
            page_tables: (self.page_tables - before.page_tables) / count,
            slab: (self.slab - before.slab) / count,
            caches: (self.caches - before.caches) / count,
            other: (self.other - before.other) / count,
            available: (before.available - self.available) / count,
        }
    }

    /// All that cannot be given up.
    pub(super) fn held(self) -> f64 {
        self.stacks + self.page_tables + self.slab + self.other
    }
}

/// A memory cgroup for the zygote and its forks, where this user may make one: it counts what is theirs and nothing else.
/// Without it the machine's own counters are all there is.
pub(super) struct Group {
    folder: PathBuf,
    file: &'static str,
}

impl Group {
    /// Makes one and puts the process into it: version 1, or version 2 where the parent lends its memory controller.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let name = format!("nodule-bench-{}", std::process::id());
        [("/sys/fs/cgroup/memory", "memory.kmem.usage_in_bytes"), ("/sys/fs/cgroup", "memory.stat")]
            .into_iter()
            .find_map(|(parent, file)| {
                let group = Self { folder: PathBuf::from(parent).join(&name), file };
                fs::create_dir(&group.folder).ok()?;
                group.kernel()?;
                fs::write(group.folder.join("cgroup.procs"), pid.to_string()).ok()?;
                Some(group)
            })
    }

    /// The kernel's memory for it, in KiB.
    pub(super) fn kernel(&self) -> Option<f64> {
        let text = fs::read_to_string(self.folder.join(self.file)).ok()?;
        let stat = || text.lines().find_map(|line| line.strip_prefix("kernel "));
        let bytes: f64 = text.trim().parse().ok().or_else(|| stat()?.parse().ok())?;
        Some(bytes / 1024.0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.folder);
    }
}

/// A line `NAME:  N kB`.
fn field(text: &str, name: &str) -> Result<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_ascii_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Pss_Dirty:  7 kB\nPss:       42 kB\n";
        assert!((field(text, "Pss").unwrap() - 42.0).abs() < f64::EPSILON);
        assert!(field(text, "Ps").is_err());
    }

    #[test]
    fn this_process_and_this_kernel_use_memory() {
        let own = Memory::of(std::process::id()).unwrap();
        assert!(own.pss >= own.private && own.private > 0.0, "{own:?}");
        assert!(Kernel::now().unwrap().page_tables > 0.0);
    }
}
