//! A guest's program: compiled code, linked, instantiated, called.

use nodule_engine::imports::{RUN, WASI_P2_VERSIONS, WASI_P3_VERSIONS};
use nodule_sandbox_proto::{Container, Kind};
use wasmtime::component::{self, Accessor, Component};
use wasmtime::{Engine, InstancePre, Module, Store, TypedFunc};
use wasmtime_wasi::{p2, p3};

use crate::base::Base;
use crate::error::StartError;
use crate::guest::Host;
use crate::http::Service;

/// What a program is for.
pub(crate) enum Program {
    /// To be run once, to its end.
    Command(Linked),
    /// To answer requests.
    Service(Service),
}

impl Program {
    /// Maps the program's code and finds everything that it imports.
    pub(crate) fn open(base: &Base, container: &Container) -> Result<Self, StartError> {
        let code = &container.program;
        match (code.kind, &container.http) {
            (Kind::Proxy, Some(http)) => Service::open(code, http).map(Self::Service),
            (Kind::Proxy, None) => Err(StartError::NoAddress),
            (Kind::Module | Kind::Component, _) => {
                let loaded = Loaded::load(&base.engine, code)?;
                loaded.link(base).map(Self::Command).map_err(StartError::Link)
            }
        }
    }
}

/// Native code in this process.
enum Loaded {
    /// WASI 0.1.
    Module(Module),
    /// WASI 0.2 or 0.3.
    Component(Component),
}

impl Loaded {
    #[expect(unsafe_code, reason = "native code is run: that is what this process is for")]
    fn load(engine: &Engine, program: &nodule_sandbox_proto::Program) -> Result<Self, StartError> {
        let nodule_sandbox_proto::Program { cwasm, kind } = program;
        // SAFETY: the file is the output of this node's own nodule-compile. The agent names no other, keeps it where
        // only itself can write and never changes it; its path is from container.json, which only the agent writes.
        let loaded = unsafe {
            match kind {
                Kind::Module => Module::deserialize_file(engine, cwasm).map(Self::Module),
                Kind::Component | Kind::Proxy => {
                    Component::deserialize_file(engine, cwasm).map(Self::Component)
                }
            }
        };
        loaded.map_err(|source| StartError::Load(cwasm.clone(), source))
    }

    /// Finds everything that the program imports.
    fn link(&self, base: &Base) -> wasmtime::Result<Linked> {
        Ok(match self {
            Self::Module(module) => Linked::Module(base.modules()?.instantiate_pre(module)?),
            Self::Component(component) => {
                let linked = base.components()?.instantiate_pre(component)?;
                if is_p3(component) {
                    Linked::Concurrent(linked)
                } else {
                    Linked::Component(p2::bindings::CommandPre::new(linked)?)
                }
            }
        })
    }
}

/// Whether the component is a command of WASI 0.3. One of both versions is taken as one of 0.2.
fn is_p3(component: &Component) -> bool {
    let runs = |versions: &str| {
        let name = format!("{RUN}@{versions}");
        let exports = component.component_type();
        exports.exports(component.engine()).any(|(export, _)| export.starts_with(&name))
    };
    runs(WASI_P3_VERSIONS) && !runs(WASI_P2_VERSIONS)
}

/// A program that lacks nothing but its own memory.
pub(crate) enum Linked {
    Module(InstancePre<Host>),
    /// WASI 0.2.
    Component(p2::bindings::CommandPre<Host>),
    /// WASI 0.3.
    Concurrent(component::InstancePre<Host>),
}

impl Linked {
    /// What it was compiled for.
    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Self::Module(module) => module.module().engine(),
            Self::Component(component) => component.engine(),
            Self::Concurrent(component) => component.engine(),
        }
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Entry> {
        match self {
            Self::Module(module) => {
                let instance = module.instantiate_async(&mut *store).await?;
                instance.get_typed_func(store, "_start").map(Entry::Module)
            }
            Self::Component(component) => {
                component.instantiate_async(store).await.map(Entry::Component)
            }
            Self::Concurrent(component) => {
                let instance = component.instantiate_async(&mut *store).await?;
                p3::bindings::Command::new(store, &instance).map(Entry::Concurrent)
            }
        }
    }
}

/// The guest's first function.
pub(crate) enum Entry {
    Module(TypedFunc<(), ()>),
    Component(p2::bindings::Command),
    Concurrent(p3::bindings::Command),
}

impl Entry {
    /// Returns the exit code of a guest that returned.
    pub(crate) async fn call(&self, store: &mut Store<Host>) -> wasmtime::Result<u8> {
        match self {
            Self::Module(start) => start.call_async(store, ()).await.map(|()| 0),
            Self::Component(command) => {
                let result = command.wasi_cli_run().call_run(store).await?;
                Ok(u8::from(result.is_err()))
            }
            Self::Concurrent(command) => {
                let run = async |host: &Accessor<Host>| command.wasi_cli_run().call_run(host).await;
                let result = store.run_concurrent(run).await??;
                Ok(u8::from(result.is_err()))
            }
        }
    }
}
