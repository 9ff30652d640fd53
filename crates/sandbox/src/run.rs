//! From a state folder to an exit code: the order of things.

use nodule_sandbox_proto::{Cause, Exit, Report, State};
use thiserror::Error;

use crate::control::Control;
use crate::guest::{self, Given};
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
    let container = state.container();
    let id = container.as_ref().map_or_else(|_| String::new(), |container| container.id.clone());
    let given =
        container.map_err(StartError::from).and_then(|container| Ok(Given::new(container)?));
    let exit = match serve(id, given.as_ref().ok()) {
        Ok(control) => {
            let exit = given
                .map_or_else(|error| not_started(&error), |given| live(state, &control, &given));
            keep(state, &exit);
            control.end(exit.clone());
            exit
        }
        Err(error) => {
            let exit = not_started(&error);
            keep(state, &exit);
            exit
        }
    };
    exit.code
}

/// Makes the process its own master, and answers the agent from here on.
fn serve(id: String, given: Option<&Given>) -> Result<Control, StartError> {
    process::detach().map_err(StartError::Detach)?;
    let listener = process::listener().map_err(StartError::Socket)?;
    let stop = given.map(Given::stop);
    Control::start(listener, id, move || stop.iter().for_each(|stop| stop()))
        .map_err(StartError::Control)
}

/// The guest from load to end, and the end of its log.
fn live(state: &State, control: &Control, given: &Given) -> Exit {
    let exit = guest::run(given, |started| {
        state.write_started(&started)?;
        control.say(Report::Started(started));
        Ok(())
    });
    given.log.finish();
    exit
}

fn not_started(error: &StartError) -> Exit {
    Exit::new(Cause::StartFailed, &chain(error), None, process::now())
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
