//! Whether a core module is a program for this node.

use nodule_engine::imports::{WASI_P1, WASI_P1_FUNCTIONS};
use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, Import, Parser, Payload, TypeRef, ValType,
};

use super::invalid;
use crate::input::{InputError, refuse_imports};

/// A WASI 0.1 command: it has `_start`, and imports nothing but WASI.
pub(super) fn check(wasm: &[u8]) -> Result<(), InputError> {
    let module = Module::read(wasm).map_err(invalid)?;
    let missing: Vec<_> =
        module.imports.iter().filter_map(|import| module.missing(import)).collect();
    refuse_imports(&missing)?;
    let start = module.exports.iter().find(|(name, ..)| *name == "_start");
    match start {
        Some((_, ExternalKind::Func, index)) if module.signature_of(*index) == ":" => Ok(()),
        Some(_) => Err(InputError::StartType),
        None => Err(InputError::NoStart { remedy: module.remedy() }),
    }
}

/// The sections that say what goes in and out.
#[derive(Default)]
struct Module<'a> {
    /// None for what is no function's.
    types: Vec<Option<FuncType>>,
    imports: Vec<Import<'a>>,
    /// The types of functions, imported ones first.
    functions: Vec<u32>,
    exports: Vec<(&'a str, ExternalKind, u32)>,
}

impl<'a> Module<'a> {
    fn read(wasm: &'a [u8]) -> wasmparser::Result<Self> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            module.take(payload?)?;
        }
        Ok(module)
    }

    fn take(&mut self, payload: Payload<'a>) -> wasmparser::Result<()> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other section is looked into")]
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups {
                    self.types.extend(group?.into_types().map(
                        |one| match one.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            CompositeInnerType::Array(_)
                            | CompositeInnerType::Struct(_)
                            | CompositeInnerType::Cont(_) => None,
                        },
                    ));
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    self.imports.push(import);
                    self.functions.extend(function_type(import.ty));
                }
            }
            Payload::FunctionSection(types) => {
                for one in types {
                    self.functions.push(one?);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    self.exports.push((export.name, export.kind, export.index));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn remedy(&self) -> &'static str {
        if self.exports.iter().any(|(name, ..)| *name == "_initialize") {
            "it is a reactor, which others call; build a command (in C without `-mexec-model=reactor`, in Rust a `bin`)"
        } else {
            "build a command for the target wasm32-wasip1 or wasm32-wasip2, not a library and not wasm32-unknown-unknown"
        }
    }

    /// The import's name and a hint, if this node does not provide it.
    fn missing(&self, import: &Import<'_>) -> Option<(String, Option<&'static str>)> {
        let Import { module, name, ty } = *import;
        let given = WASI_P1_FUNCTIONS.iter().find(|(known, _)| module == WASI_P1 && *known == name);
        let wanted = function_type(ty).map(|index| self.signature(index));
        let is_provided = given.is_some_and(|(_, given)| wanted.as_deref() == Some(*given));
        (!is_provided).then(|| (format!("{module}.{name}"), hint(module, name)))
    }

    fn signature_of(&self, function: u32) -> String {
        let index = usize::try_from(function).ok().and_then(|index| self.functions.get(index));
        index.map_or_else(String::new, |index| self.signature(*index))
    }

    /// The type of a function in the letters of `nodule_engine::imports`; empty if it is none.
    fn signature(&self, index: u32) -> String {
        let index = usize::try_from(index).ok();
        let function = index.and_then(|index| self.types.get(index)).and_then(Option::as_ref);
        let letters = |types: &[ValType]| types.iter().map(|one| letter(*one)).collect::<String>();
        function.map_or_else(String::new, |function| {
            format!("{}:{}", letters(function.params()), letters(function.results()))
        })
    }
}

fn function_type(ty: TypeRef) -> Option<u32> {
    match ty {
        TypeRef::Func(index) | TypeRef::FuncExact(index) => Some(index),
        TypeRef::Table(_) | TypeRef::Memory(_) | TypeRef::Global(_) | TypeRef::Tag(_) => None,
    }
}

fn letter(value: ValType) -> char {
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
            "it needs the WasmEdge runtime's sockets: WASI 0.1 has none; build for wasm32-wasip2, whose wasi:sockets \
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
        ("rb-js-abi-host", _) => Some(
            "this is Ruby for a JavaScript host, as npm has it: use a Ruby that is a WASI command",
        ),
        ("wasix_32v1" | "wasix_64v1", _) => Some(
            "it needs the Wasmer runtime's WASIX: build for wasm32-wasip2 (processes and threads have no counterpart, \
             sockets have wasi:sockets)",
        ),
        _ if module.starts_with("wasi_ephemeral_nn") => Some("wasi-nn is not offered"),
        _ if module.starts_with("wasi:") => {
            Some("this is the core of a component: make it one (`wasm-tools component new`)")
        }
        _ => None,
    }
}
