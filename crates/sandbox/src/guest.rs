//! The guest: from compiled code to the end of its first function.

use nodule_sandbox_proto::{Exit, Started, StateError};
use tokio::runtime::{Builder, Runtime};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};

use crate::error::StartError;
use crate::given::Given;
use crate::memory::Memory;
use crate::outcome;
use crate::process::now;
use crate::program::{Entry, Loaded};

/// What the host keeps for the guest, beside its memory.
pub(crate) struct Host {
    /// The state of WASI 0.1 includes that of 0.2, on which it is built.
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: Memory,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Runs the guest to its end. `started` is called when everything is ready, before the guest's first function.
pub(crate) fn run(
    given: &Given,
    started: impl FnOnce(Started) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    let exit = runtime.block_on(live(given, started));
    // A name lookup may still be on its way; nobody waits for it any more.
    Runtime::shutdown_background(runtime);
    exit
}

async fn live(
    given: &Given,
    started: impl FnOnce(Started) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let (mut store, entry) = prepare(given).await?;
    let at = now();
    started(Started::here(at).map_err(StartError::Process)?)?;
    let result = entry.call(&mut store).await;
    Ok(outcome::ended(result, &store.data().memory, at))
}

async fn prepare(given: &Given) -> Result<(Store<Host>, Entry), StartError> {
    let engine = Engine::new(&nodule_engine::config()).map_err(StartError::Engine)?;
    let loaded = Loaded::load(&engine, &given.container.program)?;
    let linked = loaded.link(&engine).map_err(StartError::Link)?;
    let host = Host { wasi: given.wasi()?, memory: Memory::new(given.container.limits.memory) };
    let mut store = Store::new(&engine, host);
    store.limiter(|host| &mut host.memory);
    match linked.instantiate(&mut store).await {
        Ok(entry) => Ok((store, entry)),
        Err(error) => Err(refusal(&store.data().memory, error)),
    }
}

/// Why the program could not be instantiated.
fn refusal(memory: &Memory, error: wasmtime::Error) -> StartError {
    match (memory.refused(), memory.limit()) {
        (Some(refused), Some(limit)) => StartError::Memory { wanted: refused.wanted, limit },
        (Some(_) | None, _) => StartError::Instantiate(error),
    }
}
