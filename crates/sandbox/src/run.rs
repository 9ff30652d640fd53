//! From a state folder to an exit code: the order of things.

use nodule_sandbox_proto::{Cause, Exit, Report, State};

use crate::control::Control;
use crate::error::{StartError, chain};
use crate::given::Given;
use crate::{guest, process};

/// Runs the container of `state` to its end; returns what the process exits with.
pub(crate) fn run(state: &State) -> u8 {
    let container = state.container();
    let id = container.as_ref().map_or_else(|_| String::new(), |container| container.id.clone());
    let given =
        container.map_err(StartError::from).and_then(|container| Given::new(container, state));
    let control = serve(id, given.as_ref().ok());
    let exit = match (&control, given) {
        (Ok(control), Ok(given)) => live(state, control, &given),
        (Err(error), _) => not_started(error),
        (_, Err(error)) => not_started(&error),
    };
    if let Err(error) = state.write_exit(&exit) {
        // The socket and the exit code still tell.
        process::diagnose(chain(&error));
    }
    let code = exit.code;
    if let Ok(control) = control {
        control.end(exit);
    }
    code
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
    exit.unwrap_or_else(|error| not_started(&error))
}

/// Told to the agent, and to whoever looks after the node.
fn not_started(error: &StartError) -> Exit {
    let message = chain(error);
    process::diagnose(format_args!("the guest did not start: {message}"));
    Exit::new(Cause::StartFailed, &message, None, process::now())
}
