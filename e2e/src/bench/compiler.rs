//! Programs compiled as the agent has them compiled.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nodule_sandbox_proto::{Kind, Program};

use crate::paths;

/// Compiles a module into this folder.
pub(super) fn compile(wasm: &Path, into: &Path) -> Result<Program> {
    compile_as(wasm, into, Kind::Module)
}

/// Compiles a program that is of this kind.
pub(super) fn compile_as(wasm: &Path, into: &Path, kind: Kind) -> Result<Program> {
    let name = wasm.file_name().context("a program's file name")?;
    let cwasm = into.join(name).with_extension("cwasm");
    let output = Command::new(paths::program("nodule-compile")?)
        .arg("compile")
        .args([wasm, &cwasm])
        .args(["--max-memory-mib", "4096", "--max-seconds", "900"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "compile {}: {said}", wasm.display());
    Ok(Program { cwasm, kind })
}
