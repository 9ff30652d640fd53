//! The process that compiles: standard input is the program, standard output becomes the code.

use std::io;

use anyhow::{Context, Result};
use rustix::io::Errno;
use wasmtime::OutOfMemory;

use crate::engine::{Engines, own};
use crate::input::InputError;
use crate::program::{Kind, Program};
use crate::report::Report;
use crate::{Limits, jail};

/// Compiles within the limits, and returns what to print.
pub(crate) fn compile(limits: &Limits) -> Result<String> {
    jail::bind(limits.parent).context("watch the parent process")?;
    let engines = Engines::new()?;
    let missing = jail::enter(limits)?;
    let out_of_memory = InputError::Memory { mib: limits.max_memory_mib };
    let wasm = match read() {
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
            return Err(out_of_memory.into());
        }
        read => read.context("read the program")?,
    };
    let Program { kind, wasi } = Program::of(&wasm)?;
    let engine = engines.of(kind);
    let compiled = match kind {
        Kind::Module => engine.precompile_module(&wasm),
        Kind::Component | Kind::Proxy => engine.precompile_component(&wasm),
    };
    let code = match compiled {
        Err(error) if is_out_of_memory(&error) => return Err(out_of_memory.into()),
        compiled => compiled.map_err(invalid)?,
    };
    write(&code).context("write the compiled code")?;
    Ok(serde_json::to_string(&Report { kind, wasi, size: code.len() as u64, missing })?)
}

/// All of standard input. Its length is asked, so that the memory is taken once.
fn read() -> io::Result<Vec<u8>> {
    let stdin = rustix::stdio::stdin();
    let length = usize::try_from(rustix::fs::fstat(stdin)?.st_size).unwrap_or(0);
    let mut wasm = Vec::new();
    loop {
        // One byte more than it is long: there the end is seen.
        let room = (length + 1).saturating_sub(wasm.len()).max(64 * 1024);
        wasm.try_reserve(room)?;
        match rustix::io::read(stdin, rustix::buffer::spare_capacity(&mut wasm)) {
            Ok(0) => return Ok(wasm),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Standard output as it is: Rust's own is cut into lines.
fn write(mut code: &[u8]) -> io::Result<()> {
    while !code.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), code) {
            Ok(written) => code = code.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<OutOfMemory>()
            || cause.downcast_ref() == Some(&Errno::NOMEM)
            || cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
    })
}

/// The compiler refuses what it is given; only what the kernel refuses to it is no fault of the program.
fn invalid(error: wasmtime::Error) -> anyhow::Error {
    if error.chain().any(|cause| cause.is::<io::Error>() || cause.is::<Errno>()) {
        return own(error).context("compile the program");
    }
    let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
    InputError::Invalid(causes.join(": ")).into()
}
