//! What commands and the agent say to each other: a JSON line each.

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::image::Ask;

/// A request is a line of at most so many bytes.
pub(crate) const LONGEST: u64 = 64 << 20;

/// What a command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Request {
    /// Run these. An image that is an absolute path lies on this machine. Logins are docker configurations.
    Run { pods: Vec<Pod>, logins: Vec<String>, replace: bool },
    /// All pods, once.
    List,
    /// All pods, now and whenever something of them has changed.
    Watch,
    /// End these, by UID, within so many seconds.
    Stop { uids: Vec<String>, grace: Option<u64> },
    /// Remove these, by UID; what runs is ended first.
    Remove { uids: Vec<String>, grace: Option<u64> },
    /// Something about images, which is answered in words of its own.
    Image(Ask),
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// All pods; of `Run`, those that were begun.
    Pods(Vec<Pod>),
    /// It is done, or begun.
    Done,
    /// It is not, for this reason.
    Refused(String),
}
