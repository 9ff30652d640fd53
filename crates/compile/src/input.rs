//! What can be wrong with an input, in words for whoever published it.

use thiserror::Error;

/// Why an input is no program for this node. Each says what to do, where there is something to do.
#[derive(Debug, Error)]
pub(crate) enum InputError {
    /// No bytes.
    #[error("the program is empty")]
    Empty,
    /// An ELF file: native code, or Wasm that somebody else compiled.
    #[error(
        "this is native code (ELF), not WebAssembly: publish the .wasm, each node compiles it for itself and runs \
         nothing that others compiled"
    )]
    Native,
    /// The text format.
    #[error(
        "this is WebAssembly's text format: publish the binary (`wat2wasm`, `wasm-tools parse`)"
    )]
    Text,
    /// A file of another known kind.
    #[error("this is {what}, not WebAssembly: {remedy}")]
    Other {
        /// What it is.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Anything else.
    #[error("this is not WebAssembly: it begins with the bytes {head}")]
    Unknown {
        /// Its first bytes in hexadecimal.
        head: String,
    },
    /// Wasm of another version.
    #[error(
        "this is WebAssembly of version {version} and layer {layer}, which this node does not know: it runs modules \
         (version 1, layer 0) and components (version 13, layer 1); rebuild it with a current toolchain"
    )]
    Version {
        /// The lower half of the version field.
        version: u16,
        /// The upper half: 0 for modules, 1 for components.
        layer: u16,
    },
    /// It breaks the specification, or uses what this node does not offer.
    #[error("the program is not valid here: {0}")]
    Invalid(String),
    /// A component that only has types.
    #[error(
        "this is a WIT package: it describes interfaces and has no code; publish the component that implements them"
    )]
    WitPackage,
    /// A module that nothing can start.
    #[error("the module has no function `_start` and is no program: {remedy}")]
    NoStart {
        /// What to do.
        remedy: &'static str,
    },
    /// A `_start` that takes or returns values.
    #[error(
        "the module's `_start` is no function without parameters and results, as WASI wants it"
    )]
    StartType,
    /// A component that nothing can start.
    #[error("the component does not export `wasi:cli/run` of WASI 0.2 and is no command: {remedy}")]
    NoRun {
        /// What to do.
        remedy: String,
    },
    /// Imports that this node does not provide.
    #[error("the program imports what this node does not provide: {names}{}", hints.iter().map(|hint| format!("; {hint}")).collect::<String>())]
    Imports {
        /// Which.
        names: String,
        /// Why they are not there, and what to do: once for each kind of them.
        hints: Vec<&'static str>,
    },
    /// What the worker has said already: one of the others.
    #[error("{0}")]
    Told(String),
    /// The memory limit.
    #[error(
        "compiling the program takes more than the {mib} MiB of memory that this node gives to it: publish a smaller program or raise `compile.memory`"
    )]
    Memory {
        /// The limit.
        mib: u32,
    },
    /// The limit of what is written.
    #[error(
        "the program's compiled code takes more than the {mib} MiB that this node gives to it: publish a smaller program or raise `compile.output`"
    )]
    Output {
        /// The limit.
        mib: u32,
    },
    /// The compiler itself is at fault, but the next try ends the same.
    #[error(
        "the compiler crashes on the program: {words}; build the program with another version of its toolchain or with \
         other optimisations, and report the crash to nodule"
    )]
    Crash {
        /// Its last words.
        words: String,
    },
    /// A crash that is known: of RISC-V CPUs without vectors (Wasmtime's issue 13959).
    #[error(
        "this node's CPU cannot run the program: without RISC-V's extension V the compiler crashes on vectors and on \
         copies of 16 to 128 bytes ({words}); run it on a node whose CPU has V"
    )]
    NoVectors {
        /// Its last words.
        words: String,
    },
    /// The time limit.
    #[error(
        "compiling the program takes more than the {seconds} s of CPU time that this node gives to it: publish a smaller program or raise `compile.timeout`"
    )]
    Time {
        /// The limit.
        seconds: u32,
    },
}

/// How many imports a message names.
const NAMED: usize = 8;

/// Imports that are not provided, with a hint for those of a known kind; an error if there are any.
pub(crate) fn refuse_imports(missing: &[(String, Option<&'static str>)]) -> Result<(), InputError> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut names: Vec<_> =
        missing.iter().take(NAMED).map(|(name, _)| format!("`{name}`")).collect();
    if let Some(more) = missing.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("and {more} more"));
    }
    let mut hints: Vec<_> = missing.iter().filter_map(|(_, hint)| *hint).collect();
    hints.sort_unstable();
    hints.dedup();
    Err(InputError::Imports { names: names.join(", "), hints })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_given_once_and_names_are_not_endless() {
        let missing: Vec<_> =
            (0..10).map(|number| (format!("env.f{number}"), Some("a hint"))).collect();
        let message = refuse_imports(&missing).unwrap_err().to_string();
        assert!(message.ends_with("`env.f7`, and 2 more; a hint"), "{message}");
        assert!(refuse_imports(&[]).is_ok());
    }
}
