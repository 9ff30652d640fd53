//! Why a guest did not start, in words for its user.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use nodule_sandbox_proto::StateError;

use crate::jail::JailError;

/// Why a guest's first function was not entered: what was tried and on what. [`chain`] adds the causes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The process could not be made independent of the agent.
    #[error("leave the agent's session")]
    Detach(#[source] io::Error),
    /// The agent gave no socket.
    #[error("take the control socket")]
    Socket(#[source] io::Error),
    /// The control thread did not start.
    #[error("start the control thread")]
    Control(#[source] io::Error),
    /// There is no usable `container.json`, or no `started.json` could be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] nodule_logs::Error),
    /// Where the container's end is written; why not is told beside it.
    #[error("open the container's own folder")]
    Out,
    /// What the process should be confined by, or to.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// A mount that cannot be opened as a folder.
    #[error("open the mount at {guest}")]
    Preopen {
        /// Where the guest would see it.
        guest: String,
        /// Why not.
        source: wasmtime::Error,
    },
    /// Whose log it is.
    #[error("take the folder of {}", .0.display())]
    LogFolder(PathBuf, #[source] io::Error),
    /// The kernel gives no random numbers.
    #[error("seed the guest's random numbers")]
    Random(#[source] rand::rngs::SysError),
    /// The runtime of the host's functions.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// What names this process.
    #[error("look at this process")]
    Process(#[source] io::Error),
    /// The engine does not work on this machine.
    #[error("start the engine")]
    Engine(#[source] wasmtime::Error),
    /// The compiled code cannot be loaded: it is damaged, or of another release.
    #[error("load {}", .0.display())]
    Load(PathBuf, #[source] wasmtime::Error),
    /// Something that the program imports is not there, or of another type, or it has no first function.
    #[error("link the program")]
    Link(#[source] wasmtime::Error),
    /// A program that answers requests, and nothing says where it is served.
    #[error("serve the program: it answers HTTP requests, and no address is given")]
    NoAddress,
    /// The address where it should be served.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Root certificates that are none.
    #[error("read root certificates from {0}: {1}")]
    Roots(String, String),
    /// The program's memories and tables are larger than its limit from the start.
    #[error("the program begins with {wanted} bytes of memory, and its limit is {limit} bytes")]
    Memory {
        /// What it begins with.
        wanted: usize,
        /// What it may have.
        limit: usize,
    },
    /// The program's memories, tables and start section.
    #[error("instantiate the program")]
    Instantiate(#[source] wasmtime::Error),
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
