//! What a guest may import. `nodule-engine`'s lists say the same to the compiler.

use nodule_engine::imports::WASI_P1;
use wasmtime::component;
use wasmtime::{Engine, Linker, Result};
use wasmtime_wasi::{I32Exit, p1, p2};

use crate::guest::Host;

/// The functions of WASI 0.1, for modules.
pub(crate) fn modules(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host: &mut Host| &mut host.wasi)?;
    // The library knows no exit code above 125; a native program's goes to 255, and Kubernetes shows it.
    linker.allow_shadowing(true);
    linker
        .func_wrap(WASI_P1, "proc_exit", |code: i32| -> Result<()> { Err(I32Exit(code).into()) })?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// The interfaces of WASI 0.2, for components.
pub(crate) fn components(engine: &Engine) -> Result<component::Linker<Host>> {
    let mut linker = component::Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    Ok(linker)
}
