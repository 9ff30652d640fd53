//! What one guest is given: all of it opened while the process still may, before it confines itself.

use std::sync::Arc;

use nodule_logs::Stream;
use nodule_sandbox_proto::{Container, Kind, Out, Report, State};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::base::Base;
use crate::error::StartError;
use crate::files::Files;
use crate::guest::Host;
use crate::http::Stop;
use crate::http::client::{self, Client};
use crate::input::Input;
use crate::jail::{Held, Jail};
use crate::memory::{Budget, Memory};
use crate::net::Network;
use crate::output::{self, Log};
use crate::program::Program;
use crate::random;

/// A container and what the host has opened for it. The process is confined from here on, but for the seal.
pub(crate) struct Given {
    pub(crate) container: Container,
    pub(crate) log: Log,
    pub(crate) jail: Jail,
    network: Arc<Network>,
    config: Arc<WasiConfigVariables>,
    /// Tells the server that the container is to stop.
    pub(crate) stop: Stop,
    budget: Budget,
    client: Arc<Client>,
    files: Files,
    input: Input,
}

impl Given {
    /// Opens all that `container`, whose state is in `state` and `out`, is given, and confines the process to it; `out`, too.
    /// The program comes beside it.
    pub(crate) fn new(
        base: &Base,
        container: Container,
        state: &State,
        out: &mut Out,
    ) -> Result<(Self, Program), StartError> {
        let mut jail = Jail::enter(&container)?;
        let logs = output::found(&container.log.path, container.user.as_ref())?;
        let stage = jail.stage(&container.mounts, &[&state.out(), logs], state.folder())?;
        let [its_out, logs] = stage.own.as_slice() else { return Err(StartError::Out) };
        out.reopen(its_out)?;
        let (log, folder) = Log::open(&container.log, logs)?;
        let files = Files::open(&stage)?;
        let program = Program::open(base, &container)?;
        let network = Network::new(&container.net);
        let roots = client::roots(&container.roots)?;
        let client = Arc::new(Client::new(roots, Arc::clone(&network), log.clone()));
        let budget = Budget::new(container.limits.memory);
        let held = Held { mounts: &stage.mounts, folders: &[out.folder(), &folder] };
        jail.confine(&stage, &held, container.user.as_ref(), sockets(&container))?;
        let input = Input::new(container.stdin);
        let config = Arc::new(container.config.clone().into_iter().collect());
        let stop = Stop::default();
        let given =
            Self { container, log, jail, network, config, stop, budget, client, files, input };
        Ok((given, program))
    }

    /// What the agent has a hold of.
    pub(crate) fn levers(&self) -> Levers {
        Levers {
            log: self.log.clone(),
            input: self.input.clone(),
            stop: self.stop.clone(),
            budget: self.budget.clone(),
        }
    }

    /// What the host keeps for one instance of the guest. Called within the runtime.
    pub(crate) fn host(&self) -> Result<Host, StartError> {
        let memory = Memory::new(&self.budget);
        let (network, config) = (Arc::clone(&self.network), Arc::clone(&self.config));
        Ok(Host::new(self.wasi()?, memory, network, config, Arc::clone(&self.client)))
    }

    /// All that one instance of the guest can reach.
    fn wasi(&self) -> Result<WasiP1Ctx, StartError> {
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

/// What the agent may ask of a guest while it runs: from any thread, as often as it likes.
pub(crate) struct Levers {
    log: Log,
    input: Input,
    stop: Stop,
    budget: Budget,
}

impl Levers {
    /// The stop notice.
    pub(crate) fn stop(&self) {
        self.input.end();
        self.stop.notify();
        self.log.flush();
    }

    /// Another limit of its memory; and the answer.
    pub(crate) fn limit(&self, memory: Option<u64>) -> Report {
        self.budget.set(memory)
    }
}

/// Whether a program may ask for sockets at all: WASI 0.1 has no way to.
pub(crate) fn sockets(container: &Container) -> crate::jail::Sockets {
    match container.program.kind {
        Kind::Module => crate::jail::Sockets::None,
        Kind::Component | Kind::Proxy => crate::jail::Sockets::Internet,
    }
}
