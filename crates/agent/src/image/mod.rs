//! `nodule image`: the images of this machine, looked at and changed by hand.
//!
//! A store has one owner at a time, as what is held against removal is known to that one alone: whoever has the lock
//! on its folder. That is the agent, which commands ask over its socket. Where none runs a command takes the lock and is the
//! owner itself. Read `cli.rs` (what there is), `store.rs` (who is asked), `keeper.rs` (who answers), `message.rs` (in
//! which words), then one file for each command.

mod cli;
mod docker;
mod import;
mod inspect;
mod keeper;
mod ls;
mod message;
mod progress;
mod prune;
mod pull;
mod push;
mod rm;
mod socket;
mod store;

use std::process::ExitCode;

use anyhow::Result;

pub(crate) use cli::Arguments;
use cli::Command;
pub(crate) use docker::credentials;
pub(crate) use keeper::Keeper;
pub(crate) use message::Ask;
pub(crate) use socket::serve;

use crate::local::Places;
use store::Store;

/// Runs one of the commands.
pub(crate) async fn main(places: &Places, arguments: Arguments) -> Result<ExitCode> {
    let mut store = Store::new(arguments.place(places)?);
    match arguments.command {
        Command::Pull(pull) => pull::run(&mut store, &pull).await?,
        Command::Ls(ls) => ls::run(&mut store, &ls).await?,
        Command::Inspect(inspect) => inspect::run(&mut store, &inspect).await?,
        Command::Rm(rm) => rm::run(&mut store, &rm).await?,
        Command::Prune(prune) => prune::run(&mut store, &prune).await?,
        Command::Import(import) => import::run(&mut store, &import).await?,
        Command::Push(push) => push::run(store.place(), &push).await?,
    }
    Ok(ExitCode::SUCCESS)
}
