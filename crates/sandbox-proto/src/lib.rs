//! What the agent and a sandbox say to each other: three files and a socket.
//!
//! One sandbox process runs one container. The agent writes [`Container`] into the container's state folder and starts
//! the process with that folder and a listening socket. The sandbox writes [`Started`] and [`Exit`] into the same
//! folder, each before it says so on the socket, so that an agent that was away learns the truth from the disk.
//!
//! Sandboxes outlive agents, so the two may be of different releases. Both say their [`VERSION`] first, in `Hello`.
//!
//! Read next: [`container`](Container) for what a sandbox is told, [`outcome`](Exit) for what it answers,
//! [`State`] for the files, [`Request`] and [`Report`] for the socket, [`frame`] for the bytes on it.

mod container;
pub mod frame;
mod message;
mod outcome;
mod state;

pub use container::{Access, Container, Kind, Limits, Log, Mount, Program, Stdin};
pub use message::{Message, Report, Request};
pub use outcome::{Cause, Exit, MESSAGE_LIMIT, Started, start_ticks};
pub use state::{CONTAINER, EXIT, STARTED, State, StateError};

/// The version of the files and messages of this crate. It grows with every change that an older peer would
/// misunderstand; a new optional field in a message is no such change.
pub const VERSION: u32 = 1;
