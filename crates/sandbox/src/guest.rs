//! The guest: from compiled code to the end of its first function.

use nodule_logs::Stream;
use nodule_sandbox_proto::{Container, Exit, Kind, Program, Started, StateError};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Store, TypedFunc};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView};

use crate::files::FilesError;
use crate::input::Input;
use crate::memory::Memory;
use crate::output::Log;
use crate::{files, linker, net, outcome, random};

/// What a guest is made of.
pub(crate) struct Given {
    pub(crate) container: Container,
    pub(crate) log: Log,
    pub(crate) input: Input,
}

impl Given {
    /// Opens the log, and makes the standard input, of a container.
    pub(crate) fn new(container: Container) -> Result<Self, nodule_logs::Error> {
        let log = Log::open(&container.log)?;
        let input = Input::new(container.stdin);
        Ok(Self { container, log, input })
    }

    /// What the stop notice does, from any thread, as often as it comes.
    pub(crate) fn stop(&self) -> impl Fn() + Send + 'static {
        let (log, input) = (self.log.clone(), self.input.clone());
        move || {
            input.end();
            log.flush();
        }
    }
}

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

/// Why a guest's first function was not entered.
#[derive(Debug, Error)]
pub(crate) enum GuestError {
    /// The runtime of the host's functions.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    /// The engine does not work on this machine.
    #[error("start the engine")]
    Engine(#[source] wasmtime::Error),
    /// The compiled code cannot be loaded: it is damaged, or of another release.
    #[error("load {}", .0.display())]
    Load(std::path::PathBuf, #[source] wasmtime::Error),
    /// A mount.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The kernel gives no random numbers.
    #[error("seed the guest's random numbers")]
    Random(#[source] rand::rngs::SysError),
    /// Something that the program imports is not there, or of another type.
    #[error("link the program")]
    Link(#[source] wasmtime::Error),
    /// The program's memories and tables are larger than its limit from the start.
    #[error("the program begins with {wanted} bytes of memory, and its limit is {limit} bytes")]
    Memory {
        /// What it begins with.
        wanted: usize,
        /// What it may have.
        limit: usize,
    },
    /// The program's memories, tables and start section.
    #[error("instantiate the program")]
    Instantiate(#[source] wasmtime::Error),
    /// The program has no first function.
    #[error("find the program's first function")]
    Entry(#[source] wasmtime::Error),
    /// `started.json` could not be written.
    #[error(transparent)]
    Started(#[from] StateError),
}

/// Runs the guest to its end. `started` is called when everything is ready, before the guest's first function.
pub(crate) fn run(given: &Given, started: impl FnOnce(Started) -> Result<(), StateError>) -> Exit {
    let runtime =
        match Builder::new_current_thread().enable_all().build().map_err(GuestError::Runtime) {
            Ok(runtime) => runtime,
            Err(error) => return outcome::not_started(&error),
        };
    let exit = runtime.block_on(live(given, started));
    // A name lookup may still be on its way; nobody waits for it any more.
    Runtime::shutdown_background(runtime);
    exit
}

async fn live(given: &Given, started: impl FnOnce(Started) -> Result<(), StateError>) -> Exit {
    let (mut store, entry) = match prepare(given).await {
        Ok(ready) => ready,
        Err(error) => return outcome::not_started(&error),
    };
    let at = crate::process::now();
    let told = Started::here(at).map_err(GuestError::Runtime).and_then(|here| Ok(started(here)?));
    if let Err(error) = told {
        return outcome::not_started(&error);
    }
    let result = entry.call(&mut store).await;
    outcome::ended(result, &store.data().memory, at)
}

async fn prepare(given: &Given) -> Result<(Store<Host>, Entry), GuestError> {
    let engine = Engine::new(&nodule_engine::config()).map_err(GuestError::Engine)?;
    let program = Loaded::load(&engine, &given.container.program)?;
    let host = Host { wasi: wasi(given)?, memory: Memory::new(given.container.limits.memory) };
    let mut store = Store::new(&engine, host);
    store.limiter(|host| &mut host.memory);
    let entry = program.instantiate(&engine, &mut store).await?;
    Ok((store, entry))
}

/// Everything a guest can reach.
fn wasi(given: &Given) -> Result<WasiP1Ctx, GuestError> {
    let Given { container, log, input } = given;
    let mut wasi = WasiCtxBuilder::new();
    // Only this guest waits for its files, so that it may as well do so here: a thread pool would cost it more.
    wasi.allow_blocking_current_thread(true).args(&container.args).envs(&container.env);
    wasi.stdout(log.stream(Stream::Stdout)).stderr(log.stream(Stream::Stderr));
    input.give(&mut wasi);
    files::give(&container.mounts, &mut wasi)?;
    random::give(&mut wasi).map_err(GuestError::Random)?;
    net::give(&mut wasi);
    Ok(wasi.build_p1())
}

/// Native code in this process.
enum Loaded {
    Module(Module),
    Component(Component),
}

impl Loaded {
    #[expect(unsafe_code, reason = "native code is run: that is what this process is for")]
    fn load(engine: &Engine, program: &Program) -> Result<Self, GuestError> {
        let Program { cwasm, kind } = program;
        // SAFETY: the file is the output of this node's own nodule-compile. The agent names no other, keeps it where
        // only itself can write and never changes it; its path is from container.json, which only the agent writes.
        let loaded = unsafe {
            match kind {
                Kind::Module => Module::deserialize_file(engine, cwasm).map(Self::Module),
                Kind::Component => Component::deserialize_file(engine, cwasm).map(Self::Component),
            }
        };
        loaded.map_err(|source| GuestError::Load(cwasm.clone(), source))
    }

    async fn instantiate(
        &self,
        engine: &Engine,
        store: &mut Store<Host>,
    ) -> Result<Entry, GuestError> {
        match self {
            Self::Module(module) => {
                let linker = linker::modules(engine).map_err(GuestError::Link)?;
                let ready = linker.instantiate_pre(module).map_err(GuestError::Link)?;
                let instance =
                    ready.instantiate_async(&mut *store).await.map_err(GuestError::Instantiate)?;
                instance
                    .get_typed_func(store, "_start")
                    .map(Entry::Module)
                    .map_err(GuestError::Entry)
            }
            Self::Component(component) => {
                let linker = linker::components(engine).map_err(GuestError::Link)?;
                let ready = linker.instantiate_pre(component).map_err(GuestError::Link)?;
                let instance =
                    ready.instantiate_async(&mut *store).await.map_err(GuestError::Instantiate)?;
                Command::new(store, &instance).map(Entry::Component).map_err(GuestError::Entry)
            }
        }
    }
}

/// Why the program could not be instantiated.
fn refusal(store: &Store<Host>, error: wasmtime::Error) -> GuestError {
    let memory = &store.data().memory;
    match (memory.refused(), memory.limit()) {
        (Some(refused), Some(limit)) => GuestError::Memory { wanted: refused.wanted, limit },
        (Some(_) | None, _) => GuestError::Instantiate(error),
    }
}

/// The guest's first function.
enum Entry {
    Module(TypedFunc<(), ()>),
    Component(Command),
}

impl Entry {
    /// Returns the exit code of a guest that returned.
    async fn call(&self, store: &mut Store<Host>) -> wasmtime::Result<u8> {
        match self {
            Self::Module(start) => start.call_async(store, ()).await.map(|()| 0),
            Self::Component(command) => {
                let result = command.wasi_cli_run().call_run(store).await?;
                Ok(u8::from(result.is_err()))
            }
        }
    }
}
