//! One container in one process: `nodule-sandbox run --state DIR`.
//!
//! The agent starts it with a listening Unix socket as file descriptor 0 and the container's state folder, which holds
//! `container.json` (see `nodule-sandbox-proto`). From then on the two are independent: the guest begins at once, its
//! output goes to its log, its end is written to the state folder, whether or not an agent is there.
//!
//! There are two threads. The first runs the guest and everything the guest calls, on a current-thread runtime. The
//! other, [`control`], serves the socket, so that nothing the agent asks waits for a guest that never yields.
//!
//! Read next: [`run`] for the order of things, then [`guest`] and its [`program`], then what it is [`given`]:
//! [`files`], [`input`], [`output`], [`memory`], [`net`], [`random`].

use std::path::PathBuf;
use std::process::ExitCode;

use nodule_sandbox_proto::State;

mod control;
mod error;
mod files;
mod given;
mod guest;
mod input;
mod linker;
mod memory;
mod net;
mod outcome;
mod output;
mod process;
mod program;
mod random;
mod run;
mod stage;

/// What the process ends with when it could not even try: `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match folder(std::env::args_os().skip(1)) {
        Some(folder) => ExitCode::from(run::run(&State::new(folder))),
        None => {
            process::diagnose("usage: nodule-sandbox run --state DIR");
            ExitCode::from(USAGE)
        }
    }
}

/// The state folder that the arguments name. There is one way to start this program and one program that does; a
/// parser for more would be memory in every container.
fn folder(arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<PathBuf> {
    let arguments: Vec<_> = arguments.collect();
    match arguments.as_slice() {
        [run, state, folder] if run == "run" && state == "--state" => Some(PathBuf::from(folder)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_form_is_taken() {
        let parse = |arguments: &[&str]| folder(arguments.iter().map(Into::into));
        assert_eq!(parse(&["run", "--state", "/s"]), Some(PathBuf::from("/s")));
        assert_eq!(parse(&["run", "--state"]), None);
        assert_eq!(parse(&["run", "--state", "/s", "more"]), None);
        assert_eq!(parse(&["--state", "/s", "run"]), None);
        assert_eq!(parse(&[]), None);
    }
}
