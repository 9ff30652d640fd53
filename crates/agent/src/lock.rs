use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// What is locked of a root directory.
pub(crate) const FILE: &str = "agent.lock";

/// Holds a root directory for this agent, as long as it lives. The kernel gives it back however the agent ends; the
/// sandboxes, which live on, do not inherit it.
pub(crate) struct Lock {
    _file: File,
}

/// That another agent holds it.
#[derive(Debug)]
pub(crate) struct Held {
    holder: String,
    root: PathBuf,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holder, root } = self;
        let root = root.display();
        write!(
            f,
            "another agent (process {holder}) uses root directory {root}: end it, or choose another with --root-dir"
        )
    }
}

impl std::error::Error for Held {}

impl Lock {
    /// Makes the root directory if need be.
    pub(crate) fn take(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)
            .with_context(|| format!("make root directory {}", root.display()))?;
        let path = root.join(FILE);
        let place = || format!("lock {}", path.display());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(place)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Held { holder: holder(&mut file), root: root.to_owned() }.into());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(place),
        }
        file.set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .with_context(place)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.is_empty() => text,
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_agent_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new");
        let lock = Lock::take(&path).unwrap();
        let error = Lock::take(&path).err().unwrap().to_string();
        assert!(
            error.contains(&format!("another agent (process {})", std::process::id())),
            "{error}"
        );
        drop(lock);
        Lock::take(&path).unwrap();
    }
}
