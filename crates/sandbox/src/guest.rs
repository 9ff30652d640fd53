//! The guest: from compiled code to the end of its first function.

use std::sync::Arc;

use nodule_sandbox_proto::{Exit, StateError};
use tokio::runtime::{Builder, Runtime};
use wasmtime::Store;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;

use crate::error::StartError;
use crate::given::{Given, sockets};
use crate::memory::Memory;
use crate::net::Network;
use crate::outcome;
use crate::process::now;
use crate::program::Entry;

/// Threads for what the WASI host only does on another thread: a component's writes to files. They end when idle.
const THREADS: usize = 2;

/// What the host keeps for the guest, beside its memory.
pub(crate) struct Host {
    /// The state of WASI 0.1 includes that of 0.2, on which it is built.
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: Memory,
    pub(crate) network: Arc<Network>,
    /// What `wasi:config` shows.
    pub(crate) config: Arc<WasiConfigVariables>,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Seals the process and runs the guest to its end. `started` is called when everything is ready, before the guest's first
/// function, with the time in Unix milliseconds and the layers of confinement that are missing.
pub(crate) fn run(
    given: Given,
    started: impl FnOnce(i64, Vec<String>) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let exit = runtime.block_on(live(given, started));
    // A write may still be on its way in another thread; nobody waits for it any more.
    Runtime::shutdown_background(runtime);
    exit
}

async fn live(
    mut given: Given,
    started: impl FnOnce(i64, Vec<String>) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let missing = given.jail.seal(sockets(&given.container))?;
    let (mut store, entry) = prepare(&given).await?;
    let at = now();
    started(at, missing)?;
    let result = entry.call(&mut store).await;
    Ok(outcome::ended(result, &store.data().memory, at))
}

async fn prepare(given: &Given) -> Result<(Store<Host>, Entry), StartError> {
    let host = Host {
        wasi: given.wasi()?,
        memory: Memory::new(given.container.limits.memory),
        network: Arc::clone(&given.network),
        config: Arc::clone(&given.config),
    };
    let mut store = Store::new(given.linked.engine(), host);
    store.limiter(|host| &mut host.memory);
    match given.linked.instantiate(&mut store).await {
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
