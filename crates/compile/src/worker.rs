//! The process that compiles.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::Serialize;
use wasmtime::component::Component;
use wasmtime::{Config, Engine, Module};

use crate::Job;
use crate::header::{self, Kind};
use crate::input::InputError;
use crate::{component, key, module};

/// What `nodule-compile key` prints.
pub(crate) fn key() -> Result<String> {
    Ok(key::key(&engine()?))
}

/// What is printed for a program that was compiled.
#[derive(Serialize)]
struct Compiled {
    kind: &'static str,
    /// The version of WASI that programs of this kind have.
    wasi: &'static str,
    /// Bytes of compiled code.
    size: usize,
}

/// Compiles within the job's limits, and returns what to print.
pub(crate) fn compile(job: &Job) -> Result<String> {
    limit(job).context("limit the worker")?;
    let wasm = fs::read(&job.input).with_context(|| format!("read {}", job.input.display()))?;
    let engine = engine()?;
    let (cwasm, kind, wasi) = match header::kind(&wasm)? {
        Kind::Module => (from_module(&engine, &wasm)?, "module", "p1"),
        Kind::Component => (from_component(&engine, &wasm)?, "component", "p2"),
    };
    replace(&job.output, &cwasm).with_context(|| format!("write {}", job.output.display()))?;
    Ok(serde_json::to_string(&Compiled { kind, wasi, size: cwasm.len() })?)
}

/// Takes away what compiling does not need, before the input is touched. The kernel counts memory that can be written:
/// address space that is only reserved is free.
fn limit(job: &Job) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    let both = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::Core, both(0))?;
    setrlimit(Resource::Data, both(u64::from(job.max_memory_mib) << 20))?;
    let seconds = u64::from(job.max_seconds);
    // SIGXCPU at the one, SIGKILL at the other.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    Ok(())
}

fn engine() -> Result<Engine> {
    let mut config: Config = nodule_engine::config();
    config.parallel_compilation(true);
    Engine::new(&config).map_err(own)
}

fn from_module(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>> {
    let module = Module::from_binary(engine, wasm).map_err(invalid)?;
    module::check(&module)?;
    module.serialize().map_err(own)
}

fn from_component(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>> {
    if !component::has_code(wasm) {
        return Err(InputError::WitPackage.into());
    }
    let component = Component::from_binary(engine, wasm).map_err(invalid)?;
    component::check(engine, &component)?;
    component.serialize().map_err(own)
}

/// The compiler refuses what it is given; only what the kernel refuses to it is no fault of the program.
fn invalid(error: wasmtime::Error) -> anyhow::Error {
    if error.chain().any(|cause| cause.is::<io::Error>() || cause.is::<rustix::io::Errno>()) {
        return own(error).context("compile the program");
    }
    let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
    InputError::Invalid(causes.join(": ")).into()
}

/// Wasmtime's errors are no standard errors, but hold one.
fn own(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::from_boxed(error.into_boxed_dyn_error())
}

/// Puts the file there whole: others may be mapping the one that was there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Nobody may change it from now on: its pages are read while it runs.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
