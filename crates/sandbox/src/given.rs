//! What one guest is given: made before the control thread, as some of it must be.

use nodule_logs::Stream;
use nodule_sandbox_proto::{Container, State};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::error::StartError;
use crate::files::Files;
use crate::input::Input;
use crate::output::Log;
use crate::{net, random};

/// A container and what the host has opened for it.
pub(crate) struct Given {
    pub(crate) container: Container,
    pub(crate) log: Log,
    files: Files,
    input: Input,
}

impl Given {
    /// Opens the log and looks at the mounts of a container whose state is in `state`.
    pub(crate) fn new(container: Container, state: &State) -> Result<Self, StartError> {
        let log = Log::open(&container.log)?;
        let files = Files::new(&container.mounts, state.folder())?;
        let input = Input::new(container.stdin);
        Ok(Self { container, log, files, input })
    }

    /// What the stop notice does, from any thread, as often as it comes.
    pub(crate) fn stop(&self) -> impl Fn() + Send + 'static {
        let (log, input) = (self.log.clone(), self.input.clone());
        move || {
            input.end();
            log.flush();
        }
    }

    /// All that the guest can reach. Called once.
    pub(crate) fn wasi(&self) -> Result<WasiP1Ctx, StartError> {
        let mut wasi = WasiCtxBuilder::new();
        // Only this guest waits for its files, so that it may as well do so here: a thread pool would cost it more.
        wasi.allow_blocking_current_thread(true);
        wasi.args(&self.container.args).envs(&self.container.env);
        wasi.stdout(self.log.stream(Stream::Stdout)).stderr(self.log.stream(Stream::Stderr));
        self.input.give(&mut wasi);
        self.files.give(&mut wasi)?;
        random::give(&mut wasi).map_err(StartError::Random)?;
        net::give(&mut wasi);
        Ok(wasi.build_p1())
    }
}
