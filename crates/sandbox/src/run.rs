//! From a state folder to an exit code: the order of things.

use std::process::ExitCode;

use nodule_sandbox_proto::{Cause, Exit, Out, Process, Report, State};

use crate::base::Base;
use crate::control::Control;
use crate::error::{StartError, chain};
use crate::given::Given;
use crate::program::Program;
use crate::{guest, process};

/// Runs the container of `state` in a process that an exec has made.
pub(crate) fn alone(state: &State) -> ExitCode {
    run(Base::new().map_err(StartError::Engine), state)
}

/// Runs the container of `state` to its end, in a process that is for nothing else.
///
/// What needs the agent's rights comes first: to say which process this is, to read what to run, to open what the guest
/// is given. Then the process confines itself, and only then is there another thread, and only then a guest.
pub(crate) fn run(base: Result<Base, StartError>, state: &State) -> ExitCode {
    let named = introduce(state);
    let mut out = Out::open(state).map_err(StartError::from);
    let container = state.container();
    let id = container.as_ref().map_or_else(|_| String::new(), |container| container.id.clone());
    process::name(&id);
    let given = named.and(base).and_then(|base| {
        let out = out.as_mut().map_err(|_| StartError::Out)?;
        Given::new(&base, container?, state, out)
    });
    let control = serve(id, given.as_ref().ok().map(|(given, _)| given));
    let exit = match (&control, given, &out) {
        (_, _, Err(error)) | (Err(error), ..) => not_started(error),
        (_, Err(error), _) => not_started(&error),
        (Ok(control), Ok((given, program)), Ok(out)) => live(out, control, given, program),
    };
    if let Ok(Err(error)) = out.map(|out| out.write_exit(&exit)) {
        // The socket and the exit code still tell.
        process::diagnose(chain(&error));
    }
    let code = exit.code;
    if let Ok(control) = control {
        control.end(exit);
    }
    ExitCode::from(code)
}

/// Says on the disk which process this is, so that an agent finds it whatever happens.
fn introduce(state: &State) -> Result<(), StartError> {
    let here = Process::here().map_err(StartError::Process)?;
    Ok(state.write_process(&here)?)
}

/// Makes the process its own master, and answers the agent from here on.
fn serve(id: String, given: Option<&Given>) -> Result<Control, StartError> {
    process::detach().map_err(StartError::Detach)?;
    let listener = process::listener().map_err(StartError::Socket)?;
    Control::start(listener, id, given.map(Given::levers)).map_err(StartError::Control)
}

/// The guest from its seal to its end, and the end of its log.
fn live(out: &Out, control: &Control, given: Given, program: Program) -> Exit {
    let log = given.log.clone();
    let exit = guest::run(given, program, |started| {
        out.write_started(&started)?;
        control.say(Report::Started(started));
        Ok(())
    });
    log.finish();
    exit.unwrap_or_else(|error| not_started(&error))
}

/// Told to the agent, and to whoever looks after the node.
fn not_started(error: &StartError) -> Exit {
    let message = chain(error);
    process::diagnose(format_args!("the guest did not start: {message}"));
    Exit::new(Cause::StartFailed, &message, None, process::now())
}
