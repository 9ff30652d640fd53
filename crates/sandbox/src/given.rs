//! What one guest is given: all of it opened while the process still may, before it confines itself.

use std::sync::Arc;

use nodule_logs::Stream;
use nodule_sandbox_proto::{Container, Kind, Out, State};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::base::Base;
use crate::error::StartError;
use crate::files::Files;
use crate::input::Input;
use crate::jail::{Held, Jail};
use crate::net::Network;
use crate::output::Log;
use crate::program::{Linked, Loaded};
use crate::random;

/// A container and what the host has opened for it. The process is confined from here on, but for the seal.
pub(crate) struct Given {
    pub(crate) container: Container,
    pub(crate) log: Log,
    pub(crate) linked: Linked,
    pub(crate) jail: Jail,
    pub(crate) network: Arc<Network>,
    pub(crate) config: Arc<WasiConfigVariables>,
    files: Files,
    input: Input,
}

impl Given {
    /// Opens all that `container`, whose state is in `state` and `out`, is given, and confines the process to it.
    pub(crate) fn new(
        base: &Base,
        container: Container,
        state: &State,
        out: &Out,
    ) -> Result<Self, StartError> {
        let mut jail = Jail::enter(&container)?;
        let (log, folder) = Log::open(&container.log, container.user.as_ref())?;
        let stage = jail.stage(&container.mounts, state.folder())?;
        let files = Files::open(&stage)?;
        let linked =
            Loaded::load(&base.engine, &container.program)?.link(base).map_err(StartError::Link)?;
        let held = Held { mounts: &stage.mounts, folders: &[out.folder(), &folder] };
        jail.confine(&stage, &held, container.user.as_ref(), sockets(&container))?;
        let input = Input::new(container.stdin);
        let network = Network::new(&container.net);
        let config = Arc::new(container.config.clone().into_iter().collect());
        Ok(Self { container, log, linked, jail, network, config, files, input })
    }

    /// What the stop notice does, from any thread, as often as it comes.
    pub(crate) fn stop(&self) -> impl Fn() + Send + 'static {
        let (log, input) = (self.log.clone(), self.input.clone());
        move || {
            input.end();
            log.flush();
        }
    }

    /// All that one instance of the guest can reach. Called within the runtime.
    pub(crate) fn wasi(&self) -> Result<WasiP1Ctx, StartError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&self.container.args).envs(&self.container.env);
        wasi.stdout(self.log.stream(Stream::Stdout)).stderr(self.log.stream(Stream::Stderr));
        self.input.give(&mut wasi);
        random::give(&mut wasi).map_err(StartError::Random)?;
        self.network.give(&mut wasi);
        let mut wasi = wasi.build_p1();
        self.files.give(&mut wasi);
        Ok(wasi)
    }
}

/// Whether a program may ask for sockets at all: WASI 0.1 has no way to.
pub(crate) fn sockets(container: &Container) -> crate::jail::Sockets {
    match container.program.kind {
        Kind::Module => crate::jail::Sockets::None,
        Kind::Component | Kind::Proxy => crate::jail::Sockets::Internet,
    }
}
