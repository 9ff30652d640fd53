//! What is measured on.

use std::fs;

use crate::paths;

/// One line: processors, memory, kernel, load, and what was measured, without these layers of the jail.
pub(super) fn describe(missing: &[String]) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = field(&cpus, "model name").unwrap_or(std::env::consts::ARCH);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo");
    let memory = field(&memory, "MemTotal").unwrap_or("?");
    let kernel = read("/proc/sys/kernel/osrelease");
    let user = if rustix::process::geteuid().is_root() { "root" } else { "not root" };
    let jail = if missing.is_empty() {
        "whole jail".to_owned()
    } else {
        format!("jail without {}", missing.join(", "))
    };
    let size = paths::program("nodule-sandbox").and_then(|path| Ok(fs::metadata(path)?.len()));
    format!(
        "{count} × {model}, {memory}, Linux {}, load {}, as {user}, {jail}, sandbox of {} KiB",
        kernel.trim(),
        load(),
        size.unwrap_or_default() >> 10,
    )
}

/// The load averages (proc_loadavg(5)).
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The value of the first line `NAME : VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}
