//! nodule without a cluster: `nodule run POD.yaml` and what goes with it.
//!
//! One agent for each state folder looks after the pods, in the background: it is started by the first command that needs
//! it and ends when nothing runs any more. The commands talk to it over a Unix socket that only its user can reach; logs
//! they read themselves. Read `cli.rs` (what there is), `manifest.rs` (files to pods), `client.rs` and `server.rs` (both ends
//! of the socket), `agent.rs` (the background), `attach.rs` (a `run` that stays).

mod agent;
mod attach;
mod cli;
mod client;
mod commands;
mod inline;
mod login;
mod logs;
mod manifest;
mod message;
mod output;
mod place;
mod pods;
mod server;
mod table;

pub(crate) use cli::{COMMANDS, Form, Local, Places};
pub(crate) use commands::main;
pub(crate) use login::keyring;
pub(crate) use message::Request;
pub(crate) use place::{Place, SOCKET};
pub(crate) use server::{is_own, listen};
