use std::{fs, path::Path};

use rustix::fs::StatVfs;

/// What does not change while the agent runs. A fact that the machine does not tell is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
}

impl Machine {
    /// Reads `/etc`, `/proc` and `/sys`.
    pub(crate) fn read() -> Self {
        let machine_id = first(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
        let uuid = first(&[
            "/sys/class/dmi/id/product_uuid",
            "/proc/device-tree/system-id",
            "/proc/device-tree/vm,uuid",
            "/etc/machine-id",
        ]);
        Self {
            machine_id,
            system_uuid: uuid,
            boot_id: first(&["/proc/sys/kernel/random/boot_id"]),
            kernel: first(&["/proc/sys/kernel/osrelease"]),
            os_image: pretty_name(&first(&["/etc/os-release", "/usr/lib/os-release"])),
        }
    }
}

/// What was measured just now. `None`: it could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) cpus: Option<u64>,
    pub(crate) memory: Option<Level>,
    pub(crate) storage: Option<Level>,
    pub(crate) inodes: Option<Level>,
    pub(crate) pids: Option<Level>,
    /// Bytes.
    pub(crate) swap: Option<u64>,
}

/// How much there is, and how much of it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
}

impl Measure {
    /// Asks the kernel. May block on a slow disk.
    pub(crate) fn take(root: &Path) -> Self {
        let meminfo = first(&["/proc/meminfo"]);
        let disk = rustix::fs::statvfs(root).ok();
        Self {
            cpus: std::thread::available_parallelism().ok().map(|n| n.get() as u64),
            memory: memory(&meminfo),
            swap: field(&meminfo, "SwapTotal:"),
            storage: disk.as_ref().map(storage),
            inodes: disk.as_ref().and_then(inodes),
            pids: pids(&first(&["/proc/sys/kernel/pid_max"]), &first(&["/proc/loadavg"])),
        }
    }
}

/// The trimmed content of the first file that has some.
fn first(paths: &[&str]) -> String {
    let read = |path: &&str| {
        fs::read(path).ok().map(|bytes| clean(&bytes)).filter(|text| !text.is_empty())
    };
    paths.iter().find_map(read).unwrap_or_default()
}

/// Device-tree strings end in a zero byte.
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

/// os-release(5): `PRETTY_NAME="…"`.
fn pretty_name(release: &str) -> String {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

fn storage(disk: &StatVfs) -> Level {
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Level { capacity: bytes(disk.f_blocks), available: bytes(disk.f_bavail) }
}

/// Some file systems have no fixed number of inodes, and say 0.
fn inodes(disk: &StatVfs) -> Option<Level> {
    (disk.f_files > 0).then_some(Level { capacity: disk.f_files, available: disk.f_favail })
}

fn memory(meminfo: &str) -> Option<Level> {
    Some(Level {
        capacity: field(meminfo, "MemTotal:")?,
        available: field(meminfo, "MemAvailable:")?,
    })
}

/// A line of proc_meminfo(5), in bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The fourth field of proc_loadavg(5) is `runnable/total`.
fn pids(max: &str, loadavg: &str) -> Option<Level> {
    let capacity: u64 = max.parse().ok()?;
    let used: u64 = loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Level { capacity, available: capacity.saturating_sub(used) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_what_a_node_needs() {
        let measure = Measure::take(Path::new("/"));
        assert!(measure.cpus.is_some_and(|n| n > 0));
        for level in [measure.memory, measure.storage, measure.pids] {
            assert!(
                level.is_some_and(|l| l.capacity > 0 && l.available <= l.capacity),
                "{level:?}"
            );
        }
        assert!(!Machine::read().boot_id.is_empty());
    }

    #[test]
    fn a_root_that_is_not_there_has_no_storage() {
        assert_eq!(Measure::take(Path::new("/no/such/directory")).storage, None);
    }

    #[test]
    fn meminfo_is_in_kibibytes() {
        let text =
            "MemTotal:       100 kB\nMemFree:  1 kB\nMemAvailable:    40 kB\nSwapTotal:   0 kB";
        assert_eq!(memory(text), Some(Level { capacity: 102_400, available: 40_960 }));
        assert_eq!(field(text, "SwapTotal:"), Some(0));
        assert_eq!(memory("MemTotal: many kB"), None);
    }

    #[test]
    fn names_come_without_quotes_and_zeros() {
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(clean(b" abc\n\0"), "abc");
    }

    #[test]
    fn free_process_ids_are_those_not_in_use() {
        assert_eq!(
            pids("1000", "0.1 0.2 0.3 2/300 999"),
            Some(Level { capacity: 1000, available: 700 })
        );
        assert_eq!(pids("1000", "nonsense"), None);
    }
}
