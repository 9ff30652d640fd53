//! What is said on a sandbox's socket.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Exit, Started};

/// From the agent to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Request {
    /// The first message of every connection.
    Hello {
        /// The agent's [`VERSION`](crate::VERSION).
        version: u32,
    },
    /// The stop notice: the container is to end. A held standard input reaches its end, output that is held as the
    /// beginning of a line is written. Saying it again changes nothing; a guest that does not react is killed later.
    Stop,
    /// The most memory that the guest may have from now on in bytes; none leaves what Wasm itself allows. Answered by
    /// [`Report::Limited`]. Since version 3.
    Limit {
        /// As in [`Limits`](crate::Limits).
        memory: Option<u64>,
    },
}

/// From a sandbox to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Report {
    /// The answer to [`Request::Hello`], and the first message of every connection.
    Hello {
        /// The sandbox's [`VERSION`](crate::VERSION).
        version: u32,
        /// The container that it runs; empty if it could not read what it should run.
        id: String,
    },
    /// The guest started. Said after `started.json` is written; on a new connection, again.
    Started(Started),
    /// The answer to [`Request::Limit`].
    Limited {
        /// What the guest has, in bytes.
        used: u64,
        /// The limit that holds now: the one before where the guest has more than the new one would leave it.
        memory: Option<u64>,
    },
    /// The container ended. Said after `exit.json` is written; nothing follows.
    Ended(Exit),
}

/// One direction of the socket.
pub trait Message: Serialize + DeserializeOwned {
    /// The `kind`s that this release knows.
    const KINDS: &'static [&'static str];

    /// The version of the peer, where this message says it.
    fn version(&self) -> Option<u32>;
}

impl Message for Request {
    const KINDS: &'static [&'static str] = &["hello", "stop", "limit"];

    fn version(&self) -> Option<u32> {
        match self {
            Self::Hello { version } => Some(*version),
            Self::Stop | Self::Limit { .. } => None,
        }
    }
}

impl Message for Report {
    const KINDS: &'static [&'static str] = &["hello", "started", "limited", "ended"];

    fn version(&self) -> Option<u32> {
        match self {
            Self::Hello { version, .. } => Some(*version),
            Self::Started(_) | Self::Limited { .. } | Self::Ended(_) => None,
        }
    }
}
