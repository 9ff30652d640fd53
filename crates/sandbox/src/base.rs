//! What all containers of a zygote share: made before a fork, never changed after it.
//!
//! Nothing here may hold a thread, a runtime, a guest or a random number: every fork would have the same.

use std::cell::OnceCell;

use wasmtime::{Engine, Linker, Result, component};

use crate::guest::Host;
use crate::linker;

/// The engine, and the host's functions for the programs that it runs.
pub(crate) struct Base {
    pub(crate) engine: Engine,
    modules: OnceCell<Linker<Host>>,
    components: OnceCell<component::Linker<Host>>,
}

impl Base {
    /// An engine. The host's functions follow when they are needed, or by [`warm`](Self::warm).
    pub(crate) fn new() -> Result<Self> {
        let engine = Engine::new(&nodule_engine::config())?;
        Ok(Self { engine, modules: OnceCell::new(), components: OnceCell::new() })
    }

    /// Makes all that any program could need: a zygote, so that its forks need not.
    pub(crate) fn warm(&self) -> Result<()> {
        self.modules()?;
        self.components()?;
        Ok(())
    }

    /// The functions of WASI 0.1.
    pub(crate) fn modules(&self) -> Result<&Linker<Host>> {
        made(&self.modules, || linker::modules(&self.engine))
    }

    /// The interfaces of WASI 0.2 and 0.3.
    pub(crate) fn components(&self) -> Result<&component::Linker<Host>> {
        made(&self.components, || linker::components(&self.engine))
    }
}

/// What the cell holds, or will from now on.
fn made<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(value) => Ok(value),
        None => make().map(|value| cell.get_or_init(|| value)),
    }
}
