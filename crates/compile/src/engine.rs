//! The engines that programs are compiled for.

use anyhow::Result;
use wasmtime::{Config, Engine};

use crate::key;
use crate::program::Kind;

/// One engine a kind of program: made before the jail, since it asks what the CPU can do.
pub(crate) struct Engines {
    command: Engine,
    proxy: Engine,
}

impl Engines {
    pub(crate) fn new() -> Result<Self> {
        let engine =
            |mut config: Config| Engine::new(config.parallel_compilation(true)).map_err(own);
        Ok(Self {
            command: engine(nodule_engine::config())?,
            proxy: engine(nodule_engine::proxy_config())?,
        })
    }

    pub(crate) fn of(&self, kind: Kind) -> &Engine {
        match kind {
            Kind::Module | Kind::Component => &self.command,
            Kind::Proxy => &self.proxy,
        }
    }
}

/// What `nodule-compile key` prints.
pub(crate) fn key() -> Result<String> {
    let engines = Engines::new()?;
    Ok(key::key(&[&engines.command, &engines.proxy]))
}

/// Wasmtime's errors are no standard errors, but hold one.
pub(crate) fn own(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::from_boxed(error.into_boxed_dyn_error())
}
