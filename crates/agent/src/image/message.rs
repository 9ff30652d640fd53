//! What commands and the owner of a store say to each other: a JSON line each.

use std::path::PathBuf;

use nodule_image::{Download, Inspected, Stocked};
use serde::{Deserialize, Serialize};

/// What a command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "image", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Download this one. The credentials are a docker configuration.
    Pull { name: String, credentials: String },
    /// All images.
    List,
    /// What this one is.
    Inspect { name: String },
    /// Remove this one, or its name.
    Remove { name: String },
    /// Remove what no pod uses.
    Prune { tagged: bool },
    /// Take up what is at an absolute path.
    Load { path: PathBuf, name: Option<String> },
}

/// What it is told: how far downloads are, again and again, and one answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Told {
    /// Downloads that are under way.
    Downloads(Vec<Download>),
    /// Images that are here now.
    Here(Vec<Here>),
    /// All images; of `Prune` those that are gone.
    Images(Vec<Stocked>),
    /// What an image is.
    Inspected(Box<Inspected>),
    /// The image that is gone; none if it was but a name.
    Removed(Option<Box<Stocked>>),
    /// It is not done, for this reason.
    Refused(String),
}

/// An image that was pulled or taken up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Here {
    pub(crate) name: String,
    pub(crate) digest: String,
    /// Bytes of all its content.
    pub(crate) size: u64,
}
