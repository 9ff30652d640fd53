//! From a state folder to an exit code: the order of things.

use nodule_sandbox_proto::{Cause, Container, Exit, Report, State};
use thiserror::Error;

use crate::control::Control;
use crate::guest::{self, Given};
use crate::input::Input;
use crate::output::Log;
use crate::process;

/// Why the guest could not be started, for the user: what was tried and on what. [`chain`] adds the causes.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The process could not be made independent of the agent.
    #[error("leave the agent's session")]
    Detach(#[source] std::io::Error),
    /// The agent gave no socket.
    #[error("take the control socket")]
    Socket(#[source] std::io::Error),
    /// The control thread did not start.
    #[error("start the control thread")]
    Control(#[source] std::io::Error),
    /// There is no usable `container.json`.
    #[error(transparent)]
    Container(#[from] nodule_sandbox_proto::StateError),
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] nodule_logs::Error),
}

/// Runs the container of `state` to its end; returns what the process exits with.
pub(crate) fn run(state: &State) -> u8 {
    let exit = match begin(state) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = Exit::new(Cause::StartFailed, &chain(&error), None, process::now());
            keep(state, &exit);
            exit
        }
    };
    exit.code
}

/// Everything before the guest, and the guest. An error here is one that no socket can report.
fn begin(state: &State) -> Result<Exit, StartError> {
    process::detach().map_err(StartError::Detach)?;
    let listener = process::listener().map_err(StartError::Socket)?;
    let container = state.container();
    let id = container.as_ref().map_or_else(|_| String::new(), |container| container.id.clone());
    let prepared = container
        .map_err(StartError::from)
        .and_then(|container| Ok((open(&container)?, container)));
    let (log, input) = match &prepared {
        Ok((log, container)) => (Some(log.clone()), Input::new(container.stdin)),
        Err(_) => (None, Input::new(nodule_sandbox_proto::Stdin::Empty)),
    };
    let guest_input = input.clone();
    let stop = move || {
        guest_input.end();
        log.iter().for_each(Log::flush);
    };
    let control = Control::start(listener, id, stop).map_err(StartError::Control)?;
    let exit = match prepared {
        Ok((log, container)) => serve(state, &control, container, log, input),
        Err(error) => Exit::new(Cause::StartFailed, &chain(&error), None, process::now()),
    };
    keep(state, &exit);
    control.end(exit.clone());
    Ok(exit)
}

fn open(container: &Container) -> Result<Log, StartError> {
    Ok(Log::open(&container.log)?)
}

/// The guest from load to end, and the end of its log.
fn serve(state: &State, control: &Control, container: Container, log: Log, input: Input) -> Exit {
    let started = |started| {
        state.write_started(&started)?;
        control.say(Report::Started(started));
        Ok(())
    };
    let exit = guest::run(Given { container, log: log.clone(), input }, started);
    log.finish();
    exit
}

/// Writes `exit.json`. Where that fails, the socket and the exit code still tell.
fn keep(state: &State, exit: &Exit) {
    if exit.cause == Cause::StartFailed {
        process::diagnose(format_args!("the guest did not start: {}", exit.message));
    }
    if let Err(error) = state.write_exit(exit) {
        process::diagnose(chain(&error));
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
