//! Whether a core module is a program for this node.

use nodule_engine::imports::{WASI_P1, WASI_P1_FUNCTIONS};
use wasmtime::{ExternType, FuncType, ImportType, Module, ValType};

use crate::input::{InputError, refuse_imports};

/// A WASI 0.1 command: it has `_start`, and imports nothing but WASI.
pub(crate) fn check(module: &Module) -> Result<(), InputError> {
    let missing: Vec<_> = module.imports().filter_map(|import| missing(&import)).collect();
    refuse_imports(&missing)?;
    match module.get_export("_start") {
        Some(ExternType::Func(start)) if signature(&start) == ":" => Ok(()),
        Some(_) => Err(InputError::StartType),
        None => Err(InputError::NoStart { remedy: remedy(module) }),
    }
}

fn remedy(module: &Module) -> &'static str {
    if module.get_export("_initialize").is_some() {
        "it is a reactor, which others call; build a command (in C without `-mexec-model=reactor`, in Rust a `bin`)"
    } else {
        "build a command for the target wasm32-wasip1 or wasm32-wasip2, not a library and not wasm32-unknown-unknown"
    }
}

/// The import's name and a hint, if this node does not provide it.
fn missing(import: &ImportType<'_>) -> Option<(String, Option<&'static str>)> {
    let provided = import.module() == WASI_P1
        && import.ty().func().is_some_and(|wanted| {
            let found = WASI_P1_FUNCTIONS.iter().find(|(name, _)| *name == import.name());
            found.is_some_and(|(_, given)| *given == signature(wanted))
        });
    (!provided).then(|| {
        (format!("{}.{}", import.module(), import.name()), hint(import.module(), import.name()))
    })
}

/// The type of a function in the letters of `nodule_engine::imports`.
fn signature(function: &FuncType) -> String {
    let letters = |types: &mut dyn Iterator<Item = ValType>| {
        types.map(|one| letter(&one)).collect::<String>()
    };
    format!("{}:{}", letters(&mut function.params()), letters(&mut function.results()))
}

fn letter(value: &ValType) -> char {
    match value {
        ValType::I32 => 'i',
        ValType::I64 => 'I',
        ValType::F32 => 'f',
        ValType::F64 => 'F',
        ValType::V128 => 'v',
        ValType::Ref(_) => 'r',
    }
}

/// Where imports of a known origin come from, and what to do about them.
fn hint(module: &str, name: &str) -> Option<&'static str> {
    match (module, name) {
        (WASI_P1, _) if name.starts_with("sock_") => Some(
            "these sockets are an extension of WasmEdge: WASI 0.1 has none, build for wasm32-wasip2, whose wasi:sockets \
             this node provides",
        ),
        (WASI_P1, _) => Some(
            "WASI 0.1 has no such function, or of another type: rebuild with a current toolchain",
        ),
        ("wasi_unstable", _) => Some("this is WASI of 2019: rebuild with a current toolchain"),
        ("wasi", "thread-spawn") => {
            Some("threads (wasi-threads) are not offered: build without them")
        }
        ("env", "memory") => Some("a shared memory is imported: build without threads"),
        ("env", _) => {
            Some("`env` is a host's own: Emscripten and JavaScript hosts have it; build for WASI")
        }
        ("wbg", _) | ("__wbindgen_placeholder__", _) | ("__wbindgen_externref_xform__", _) => Some(
            "this was built for a browser by wasm-bindgen: build for wasm32-wasip1 or wasm32-wasip2",
        ),
        _ if module.starts_with("wasix_") => {
            Some("WASIX is an extension of Wasmer: build for WASI")
        }
        _ if module.starts_with("wasi_ephemeral_nn") => Some("wasi-nn is not offered"),
        _ if module.starts_with("wasi:") => {
            Some("this is the core of a component: make it one (`wasm-tools component new`)")
        }
        _ => None,
    }
}
