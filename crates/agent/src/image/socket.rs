//! The socket of a node's agent, which has its pods from elsewhere: there it is asked for images alone.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tracing::debug;

use super::keeper::{Keeper, say};
use super::message::Told;
use crate::local::{Request, is_own, listen};

/// Commands that may be connected at once.
const CONNECTIONS: usize = 16;
/// A request is a line of at most so many bytes.
const LONGEST: u64 = 1 << 20;

/// Answers commands for as long as the agent runs.
pub(crate) async fn serve(path: PathBuf, keeper: Keeper) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let listener = listen(&path)?;
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if room => {
                let (stream, _) = accepted.context("accept a command")?;
                if is_own(&stream) {
                    connections.spawn(answer(stream, keeper.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(stream: UnixStream, keeper: Keeper) {
    if let Err(error) = conversation(stream, &keeper).await {
        debug!(error = format!("{error:#}"), "a command has gone");
    }
}

async fn conversation(stream: UnixStream, keeper: &Keeper) -> Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reading.take(LONGEST)).read_line(&mut line).await?;
    match serde_json::from_str(&line) {
        Ok(Request::Image(ask)) => keeper.answer(ask, &mut writing).await,
        Ok(_) => {
            let why = "this agent has its pods from a cluster: it is asked for images alone";
            say(&mut writing, &Told::Refused(why.to_owned())).await
        }
        Err(error) => {
            let why = format!("the agent does not understand it: {error}");
            say(&mut writing, &Told::Refused(why)).await?;
            bail!("{error}")
        }
    }
}
