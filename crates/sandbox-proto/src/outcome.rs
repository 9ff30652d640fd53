//! What a sandbox answers: that the guest runs, and how it ended.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The longest [`Exit::message`] in bytes: what Kubernetes keeps of a termination message.
pub const MESSAGE_LIMIT: usize = 4096;

/// The guest is about to enter its first function: `started.json`, written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When the guest started, in Unix milliseconds.
    pub at: i64,
    /// The layers of confinement that this machine or this user does not allow, by name; a word for a person each.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Where a program that answers requests does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<SocketAddr>,
}

/// How a sandbox's process ended, as its parent, the zygote, saw it: `fate.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// How a container ended: `exit.json`, written once, by the sandbox or, where that could not, by the agent.
///
/// The sandbox's word is a guest's word to whoever believes that guests escape: it says nothing of anyone else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why it ended.
    pub cause: Cause,
    /// The exit code that Kubernetes shows.
    pub code: u8,
    /// For a person; empty where the code says it all. At most [`MESSAGE_LIMIT`] bytes.
    pub message: String,
    /// When the guest started, in Unix milliseconds; none if it never did.
    pub started_at: Option<i64>,
    /// When it ended, in Unix milliseconds.
    pub finished_at: i64,
}

impl Exit {
    /// An exit whose code follows from its cause: [`Cause::code`].
    pub fn new(cause: Cause, message: &str, started_at: Option<i64>, finished_at: i64) -> Self {
        Self { cause, code: cause.code(), message: cut(message), started_at, finished_at }
    }

    /// With no more of its message than is kept: of a sandbox, which may have written anything.
    pub(crate) fn bounded(self) -> Self {
        Self { message: cut(&self.message), ..self }
    }

    /// The guest ended by itself, with `code`.
    pub fn exited(code: u8, started_at: i64, finished_at: i64) -> Self {
        Self {
            cause: Cause::Exited,
            code,
            message: String::new(),
            started_at: Some(started_at),
            finished_at,
        }
    }
}

/// Why a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The guest ended by itself: it returned or gave an exit code.
    Exited,
    /// The guest broke a rule of Wasm; the message has the trap and the guest's backtrace.
    Trapped,
    /// The guest was refused memory over its limit and did not live with that.
    OutOfMemory,
    /// The sandbox was ended from outside. Only the agent writes this: the sandbox no longer can.
    Killed,
    /// The guest never ran; the message says what was missing.
    StartFailed,
}

impl Cause {
    /// The exit code of a container that ended so: a shell's 128 + signal, with the signal that a native program would
    /// have got (SIGABRT, SIGKILL), and 128 for what never started, as the container runtimes give. 0 for
    /// [`Cause::Exited`], where the guest says the code.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited => 0,
            Self::Trapped => 128 + 6,
            Self::OutOfMemory | Self::Killed => 128 + 9,
            Self::StartFailed => 128,
        }
    }
}

/// The longest beginning of `message` that is whole characters and fits.
fn cut(message: &str) -> String {
    message.get(..message.floor_char_boundary(MESSAGE_LIMIT)).unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_at_a_character() {
        let long = format!("{}€", "x".repeat(MESSAGE_LIMIT - 1));
        let exit = Exit::new(Cause::Trapped, &long, Some(1), 2);
        assert_eq!(exit.message, "x".repeat(MESSAGE_LIMIT - 1));
        assert_eq!(Exit::new(Cause::Trapped, "short", None, 2).message, "short");
        assert_eq!(Exit { message: long, ..exit.clone() }.bounded(), exit);
    }

    #[test]
    fn codes_are_those_of_kubernetes() {
        let codes =
            [Cause::Exited, Cause::Trapped, Cause::OutOfMemory, Cause::Killed, Cause::StartFailed];
        assert_eq!(codes.map(Cause::code), [0, 134, 137, 137, 128]);
    }
}
