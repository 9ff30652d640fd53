//! One container in one process: `nodule-sandbox run --state DIR`, or a fork of `nodule-sandbox zygote --pods DIR`.
//!
//! The agent gives it a listening Unix socket as file descriptor 0 and the container's state folder, which holds
//! `container.json` (see `nodule-sandbox-proto`). From then on the two are independent: the guest begins at once, its
//! output goes to its log, its end is written to the state folder, whether or not an agent is there.
//!
//! A [`zygote`] has the engine ready ([`base`]) and forks: it spares every container an exec, the loading of this
//! program and the making of an engine. After the fork or the exec the way is the same, [`run`].
//!
//! There are two threads. The first runs the guest and everything the guest calls, on a current-thread runtime. The
//! other, [`control`], serves the socket, so that nothing the agent asks waits for a guest that never yields.
//!
//! Read next: [`run`] for the order of things, [`jail`] for what the process gives up, then [`guest`] and its
//! [`program`], or [`http`] for one that answers requests, then what it is [`given`]: [`files`], [`input`], [`output`], [`memory`], [`net`], [`random`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use nodule_sandbox_proto::State;

mod base;
mod control;
mod error;
mod files;
mod given;
mod guest;
mod http;
mod input;
pub mod jail;
mod linker;
mod memory;
mod net;
mod outcome;
mod output;
mod process;
mod program;
mod random;
mod run;
mod zygote;

/// What the process ends with when it could not even try: `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

/// The program: what its arguments ask for, to the end of the process.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    process::close_inherited();
    process::diagnose_panics();
    match Mode::parse(arguments) {
        Some(Mode::Run(folder)) => run::alone(&State::new(folder)),
        Some(Mode::Zygote) => zygote::serve(),
        None => {
            process::diagnose(
                "usage: nodule-sandbox run --state DIR | nodule-sandbox zygote --pods DIR",
            );
            ExitCode::from(USAGE)
        }
    }
}

/// The ways to start this program. There is one program that does; a parser for more would be memory in every container.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    /// One container.
    Run(PathBuf),
    /// Containers by fork, as they are ordered.
    Zygote,
}

impl Mode {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let arguments: Vec<_> = arguments.collect();
        match arguments.as_slice() {
            [run, state, folder] if run == "run" && state == "--state" => {
                Some(Self::Run(PathBuf::from(folder)))
            }
            // The folder is for who reads the process list: it says whose zygote this is.
            [zygote, pods, _] if zygote == "zygote" && pods == "--pods" => Some(Self::Zygote),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_forms_are_taken() {
        let parse = |arguments: &[&str]| Mode::parse(arguments.iter().map(Into::into));
        assert_eq!(parse(&["run", "--state", "/s"]), Some(Mode::Run("/s".into())));
        assert_eq!(parse(&["zygote", "--pods", "/p"]), Some(Mode::Zygote));
        for wrong in [&["run", "--state"][..], &["run", "--state", "/s", "more"], &["zygote"]] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse(&["--state", "/s", "run"]), None);
        assert_eq!(parse(&[]), None);
    }
}
