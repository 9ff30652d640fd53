//! What nodes have mounted in their folders: it outlives them, and a folder cannot be removed with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Unmounts all that is mounted below a folder, the innermost first.
pub fn release(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let points = table.lines().rev().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(folder)) {
        let status = Command::new("umount").args(["--lazy", point]).status().context("umount")?;
        ensure!(status.success(), "umount {point}: {status}");
    }
    Ok(())
}
