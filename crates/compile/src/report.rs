//! What is said of a program that was compiled.

use serde::{Deserialize, Serialize};

use crate::program::{Kind, Wasi};

/// The line on standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What starts the program.
    pub(crate) kind: Kind,
    /// The version of WASI that it is built for.
    pub(crate) wasi: Wasi,
    /// Bytes of compiled code.
    pub(crate) size: u64,
    /// The layers of the worker's jail that this machine or this user does not have.
    pub(crate) missing: Vec<String>,
}
