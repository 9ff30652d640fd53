//! The folder of a node. Its pods outlive its agent, but not the test.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Removed when dropped, with every process that was started for it.
pub(crate) struct Root {
    folder: TempDir,
}

impl Root {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Sandboxes, and the zygotes that they are forks of: all are started with a path of this folder.
    fn processes(&self) -> Vec<Pid> {
        let folder = self.path().as_os_str().as_encoded_bytes();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let of_folder = ids.filter(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            line.windows(folder.len()).any(|part| part == folder)
        });
        of_folder.filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // One that is just being started is found the next time.
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for process in processes {
                // It may have ended meanwhile.
                let _ = kill_process(process, Signal::KILL);
            }
        }
    }
}
