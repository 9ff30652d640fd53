//! How fast a guest is: the same work in a container, by `wasmtime run`, and as a program of this machine.
//!
//! The work times itself (`e2e/guests/measure`), so that starting is not in it. The three take turns.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nodule_sandbox_proto::{Access, Mount};
use tokio::task::yield_now;

use super::compiler::compile;
use super::container::{Guest, Sandboxes, Way};
use super::stats::median;
use super::table::Table;
use crate::paths;

/// How often each does each.
const ROUNDS: usize = 21;
/// Where the guest sees the folder of its file.
const SEEN: &str = "/data";
/// The work, and whether it is with a file.
const WORK: [(&str, bool); 4] =
    [("loop", false), ("memory", false), ("read", true), ("write", true)];

/// The files, one for each that works; and their size in bytes, that of the work.
const FILES: [&str; 3] = ["native", "sandbox", "wasmtime"];
const FILE: usize = 16 << 20;

/// What does the work.
struct Bench<'a> {
    sandboxes: &'a Sandboxes,
    guest: Guest,
    native: PathBuf,
    /// The peer and the code that it compiled; none where it is not installed.
    peer: Option<(PathBuf, PathBuf)>,
    /// The folder of the file.
    data: PathBuf,
}

/// Measures, and makes a table.
pub(super) async fn measure(sandboxes: &Sandboxes) -> Result<Table> {
    let bench = Bench::new(sandboxes)?;
    let title = "The same work, ms, medians of 21 (targets: wasmtime/sandbox at least 0.98)";
    let head = ["", "native", "sandbox", "wasmtime run", "sandbox/native", "wasmtime/sandbox"];
    let mut table = Table::new(title, &head);
    for (work, with_file) in WORK {
        table.row(bench.compare(work, with_file).await?);
    }
    Ok(table)
}

impl<'a> Bench<'a> {
    fn new(sandboxes: &'a Sandboxes) -> Result<Self> {
        let data = sandboxes.folder().join("data");
        fs::create_dir(&data)?;
        // Each container has a user of its own.
        fs::set_permissions(&data, Permissions::from_mode(0o755))?;
        for name in FILES {
            let file = data.join(name);
            fs::write(&file, vec![1; FILE])?;
            fs::set_permissions(&file, Permissions::from_mode(0o666))?;
        }
        let wasm = paths::guest("measure.p1.wasm")?;
        let guest = Guest {
            program: compile(&wasm, sandboxes.folder())?,
            args: Vec::new(),
            mounts: vec![Mount {
                sub_path: None,
                host: data.clone(),
                guest: SEEN.to_owned(),
                access: Access::ReadWrite,
            }],
            http: None,
        };
        let native = paths::guest("measure")?;
        Ok(Self { sandboxes, guest, native, peer: peer(&wasm, sandboxes.folder())?, data })
    }

    /// A row of the table.
    async fn compare(&self, work: &str, with_file: bool) -> Result<Vec<String>> {
        let [mut native, mut sandbox, mut peer] = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            yield_now().await;
            native.push(self.native(work, with_file)?);
            sandbox.push(self.sandbox(work, with_file)?);
            if let Some((program, code)) = &self.peer {
                peer.push(self.wasmtime(program, code, work, with_file)?);
            }
        }
        let [native, sandbox, peer] =
            [&mut native, &mut sandbox, &mut peer].map(|times| median(times));
        let name = if with_file { format!("{work} 4 KiB × 4096") } else { work.to_owned() };
        let mut row = vec![name];
        row.extend([native, sandbox, peer].map(|time| format!("{time:.1}")));
        row.extend([sandbox / native, peer / sandbox].map(|ratio| format!("{ratio:.2}")));
        Ok(row)
    }

    fn native(&self, work: &str, with_file: bool) -> Result<f64> {
        let mut command = Command::new(&self.native);
        command.arg(work);
        if with_file {
            command.arg(self.data.join("native"));
        }
        printed(&mut command)
    }

    fn sandbox(&self, work: &str, with_file: bool) -> Result<f64> {
        let mut guest = self.guest.clone();
        guest.args = ["measure", work].map(str::to_owned).to_vec();
        if with_file {
            guest.args.push(format!("{SEEN}/sandbox"));
        }
        milliseconds(&self.sandboxes.start(&guest, Way::Fork)?.output()?)
    }

    fn wasmtime(&self, program: &Path, code: &Path, work: &str, with_file: bool) -> Result<f64> {
        let mut command = Command::new(program);
        command.args(["run", "--allow-precompiled", "--dir"]);
        command.arg(format!("{}::{SEEN}", self.data.display())).arg(code).arg(work);
        if with_file {
            command.arg(format!("{SEEN}/wasmtime"));
        }
        printed(&mut command)
    }
}

/// `wasmtime`, from `$NODULE_WASMTIME`, and the program as it compiles it.
fn peer(wasm: &Path, folder: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let Some(program) = paths::set("NODULE_WASMTIME") else { return Ok(None) };
    let code = folder.join("measure.wasmtime");
    let output = Command::new(&program).arg("compile").arg(wasm).arg("-o").arg(&code).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "wasmtime compile: {said}");
    Ok(Some((program, code)))
}

fn printed(command: &mut Command) -> Result<f64> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    milliseconds(&String::from_utf8(output.stdout)?)
}

/// The nanoseconds that the work has printed.
fn milliseconds(text: &str) -> Result<f64> {
    let nanoseconds: f64 = text.trim().parse().with_context(|| format!("it says {text:?}"))?;
    Ok(nanoseconds / 1e6)
}
