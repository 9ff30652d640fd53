//! A guest's program: compiled code, linked, instantiated, called.

use nodule_sandbox_proto::{Kind, Program};
use wasmtime::component::Component;
use wasmtime::{Engine, InstancePre, Module, Store, TypedFunc};
use wasmtime_wasi::p2::bindings::{Command, CommandPre};

use crate::base::Base;
use crate::error::StartError;
use crate::guest::Host;

/// Native code in this process.
pub(crate) enum Loaded {
    /// WASI 0.1.
    Module(Module),
    /// WASI 0.2.
    Component(Component),
}

impl Loaded {
    #[expect(unsafe_code, reason = "native code is run: that is what this process is for")]
    pub(crate) fn load(engine: &Engine, program: &Program) -> Result<Self, StartError> {
        let Program { cwasm, kind } = program;
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
    pub(crate) fn link(&self, base: &Base) -> wasmtime::Result<Linked> {
        Ok(match self {
            Self::Module(module) => Linked::Module(base.modules()?.instantiate_pre(module)?),
            Self::Component(component) => {
                let linked = base.components()?.instantiate_pre(component)?;
                Linked::Component(CommandPre::new(linked)?)
            }
        })
    }
}

/// A program that lacks nothing but its own memory.
pub(crate) enum Linked {
    Module(InstancePre<Host>),
    Component(CommandPre<Host>),
}

impl Linked {
    /// What it was compiled for.
    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Self::Module(module) => module.module().engine(),
            Self::Component(component) => component.engine(),
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
        }
    }
}

/// The guest's first function.
pub(crate) enum Entry {
    Module(TypedFunc<(), ()>),
    Component(Command),
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
        }
    }
}
