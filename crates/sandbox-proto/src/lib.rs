//! What the agent and a sandbox say to each other: a folder of files and a socket; and how the agent asks for a process.
//!
//! One sandbox process runs one container. The agent writes [`Container`] into the container's state folder and has the
//! process started with that folder and a listening socket: by a [`zygote`], whose fork it is, or by an exec. The sandbox
//! writes [`Started`] and [`Exit`] into its own part of that folder, each before it says so on the socket, so that an
//! agent that was away learns the truth from the disk.
//!
//! Sandboxes outlive agents, so the two may be of different releases. Both say their [`VERSION`] first, in `Hello`.
//!
//! Read next: [`container`](Container) for what a sandbox is told, [`outcome`](Exit) for what it answers,
//! [`State`] for the files, [`Request`] and [`Report`] for the socket, [`frame`] for the bytes on it.

mod block;
mod boot;
mod container;
pub mod frame;
mod http;
mod message;
mod net;
mod outcome;
mod process;
mod state;
pub mod zygote;

pub use block::{Block, NoBlock};
pub use boot::{Boot, NoBoot};
pub use container::{Access, Container, Kind, Limits, Log, Mount, Program, Stdin, User};
pub use http::{Http, Roots};
pub use message::{Message, Report, Request};
pub use net::{Host, Names, Net};
pub use outcome::{Cause, Exit, Fate, MESSAGE_LIMIT, Started};
pub use process::Process;
pub use state::{CONTAINER, EXIT, FATE, OUT, Out, PROCESS, STARTED, State, StateError};

/// The version of the files and messages of this crate. It grows with every change that an older peer would
/// misunderstand; a new optional field in a message is no such change.
pub const VERSION: u32 = 3;

/// The versions of a sandbox that an agent of this release speaks with: the last one's, its own, and the next one's, after
/// an agent went back to this release. It is for the younger of the two to use the other's messages alone.
pub const SPOKEN: std::ops::RangeInclusive<u32> = VERSION - 1..=VERSION + 1;
