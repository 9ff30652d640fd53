//! Other people's programs that make images and carry them, called as their users call them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::paths;

/// A folder in which such programs work and keep what they make. Removed when dropped.
#[derive(Debug)]
pub struct Workshop {
    folder: TempDir,
}

impl Workshop {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("nodule-workshop-").tempdir()?;
        Ok(Self { folder })
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file into it, and the folders above that.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// Runs a program in it, by its name alone: `skopeo`, `umoci`, `oras`, `wkg`. What it prints; where it fails, what it complains of.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(locate(program)?);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        // It shall find no login and no settings of whoever runs this, and leave nothing elsewhere.
        command.env("XDG_CONFIG_HOME", self.path("config")).env("TMPDIR", self.folder.path());
        let output = command.output().with_context(|| format!("start {program}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = || format!("{program} {}", arguments.join(" "));
        ensure!(output.status.success(), "{}: {}\n{complaint}", line(), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs buildah with its images in this folder: it starts no container and wants no file system of the kernel.
    pub fn buildah(&self, arguments: &[&str]) -> Result<String> {
        let (root, run) = (self.path("storage"), self.path("run"));
        let (root, run) = (root.to_string_lossy(), run.to_string_lossy());
        let storage = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        self.run("buildah", &[&storage, arguments].concat())
    }
}

/// Where a program is: built from a Go module, fetched by a script beside the others', or Debian's.
fn locate(program: &str) -> Result<PathBuf> {
    match program {
        "oras" => Ok(Binaries::find()?.path("oras")?.to_owned()),
        "wkg" => Ok(paths::checkout().join("e2e/wkg")),
        _ => Ok(Path::new(program).to_owned()),
    }
}
