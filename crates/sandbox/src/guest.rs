//! The guest: from compiled code to the end of its first function.

use std::sync::Arc;

use nodule_sandbox_proto::{Exit, Started, StateError};
use tokio::runtime::{Builder, Runtime};
use wasmtime::Store;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::error::StartError;
use crate::given::{Given, sockets};
use crate::http::client::{Client, Hooks};
use crate::http::{self, Interest};
use crate::memory::Memory;
use crate::net::Network;
use crate::outcome;
use crate::process::now;
use crate::program::{Entry, Linked, Program};

/// Threads for what the WASI host only does on another thread: a component's writes to files. They end when idle.
const THREADS: usize = 2;

/// What the host keeps for one instance of the guest, beside its memory.
pub(crate) struct Host {
    /// The state of WASI 0.1 includes that of 0.2, on which it is built.
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: Memory,
    pub(crate) network: Arc<Network>,
    /// What `wasi:config` shows.
    pub(crate) config: Arc<WasiConfigVariables>,
    http: WasiHttpCtx,
    hooks: Hooks,
    /// Of an instance that answers requests: that it may have to be interrupted.
    pub(crate) interest: Option<Interest>,
}

impl Host {
    pub(crate) fn new(
        wasi: WasiP1Ctx,
        memory: Memory,
        network: Arc<Network>,
        config: Arc<WasiConfigVariables>,
        client: Arc<Client>,
    ) -> Self {
        let (http, hooks) = (WasiHttpCtx::new(), Hooks::new(client));
        Self { wasi, memory, network, config, http, hooks, interest: None }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let table = self.wasi.ctx().table;
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.http }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Seals the process and runs the guest to its end. `started` is called when everything is ready, before the guest's first
/// function.
pub(crate) fn run(
    given: Given,
    program: Program,
    started: impl FnOnce(Started) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let exit = runtime.block_on(live(given, program, started));
    // A write may still be on its way in another thread; nobody waits for it any more.
    Runtime::shutdown_background(runtime);
    exit
}

async fn live(
    mut given: Given,
    program: Program,
    started: impl FnOnce(Started) -> Result<(), StateError>,
) -> Result<Exit, StartError> {
    let missing = given.jail.seal(sockets(&given.container))?;
    let linked = match program {
        Program::Command(linked) => linked,
        Program::Service(service) => {
            return http::serve(given, service, |at, address| {
                started(Started { at, missing, served: Some(address) })
            })
            .await;
        }
    };
    let (mut store, entry) = prepare(&given, &linked).await?;
    let at = now();
    started(Started { at, missing, served: None })?;
    let result = entry.call(&mut store).await;
    Ok(outcome::ended(result, &store.data().memory, at))
}

async fn prepare(given: &Given, linked: &Linked) -> Result<(Store<Host>, Entry), StartError> {
    let mut store = Store::new(linked.engine(), given.host()?);
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
