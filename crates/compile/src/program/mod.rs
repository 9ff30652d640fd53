//! What a program is, read from its binary before it is compiled: which kind, and whether this node can run it.
//!
//! Wasmtime's own description of a module comes with executable memory, which the jail refuses; so the sections that say
//! what goes in and out are read here, by the same parser. The rest is Wasmtime's to validate.

mod component;
mod header;
mod module;

use serde::{Deserialize, Serialize};
use wasmparser::BinaryReaderError;

use crate::input::InputError;
use header::Encoding;

/// What starts a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A core module with `_start`.
    Module,
    /// A component that exports `wasi:cli/run`: WASI's world `command`.
    Component,
    /// A component that answers HTTP requests: WASI's world `proxy`, or since 0.3 `service`.
    Proxy,
}

/// The version of WASI that a program is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wasi {
    P1,
    P2,
    P3,
}

/// A program for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) wasi: Wasi,
}

impl Program {
    /// Reads what is imported and exported.
    pub(crate) fn of(wasm: &[u8]) -> Result<Self, InputError> {
        match header::encoding(wasm)? {
            Encoding::Module => {
                module::check(wasm).map(|()| Self { kind: Kind::Module, wasi: Wasi::P1 })
            }
            Encoding::Component => component::check(wasm),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is called by map_err")]
fn invalid(error: BinaryReaderError) -> InputError {
    InputError::Invalid(error.to_string())
}
