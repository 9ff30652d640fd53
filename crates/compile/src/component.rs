//! Whether a component is a program for this node.

use nodule_engine::imports::{WASI_P2_INTERFACES, WASI_P2_VERSIONS};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::input::{InputError, refuse_imports};

/// A WASI 0.2 command: it exports `wasi:cli/run`, and imports nothing but WASI 0.2.
pub(crate) fn check(engine: &Engine, component: &Component) -> Result<(), InputError> {
    let component = component.component_type();
    let missing: Vec<_> = component.imports(engine).filter_map(|(name, _)| missing(name)).collect();
    let exports: Vec<_> = component.exports(engine).map(|(name, _)| name.to_owned()).collect();
    // What it is says more than what it lacks: an HTTP component is told so, not that it imports HTTP.
    if !exports.iter().any(|name| is_run(name)) {
        return Err(InputError::NoRun { remedy: remedy(&exports) });
    }
    refuse_imports(&missing)
}

fn is_run(export: &str) -> bool {
    split(export).is_some_and(|(interface, version)| interface == "wasi:cli/run" && is_p2(version))
}

fn remedy(exports: &[String]) -> String {
    let has = |beginning: &str| exports.iter().any(|name| name.starts_with(beginning));
    if has("wasi:http/") {
        "it serves HTTP (`wasi:http`), which this release does not offer; build a command that listens by wasi:sockets".into()
    } else if has("wasi:cli/run@") {
        "it is of another version of WASI; build for wasm32-wasip2".into()
    } else if exports.is_empty() {
        "it exports nothing; build a command (in Rust a `bin` for wasm32-wasip2)".into()
    } else {
        format!(
            "it exports {}; build a command, or compose it with one that calls it",
            exports.join(", ")
        )
    }
}

/// The import's name and a hint, if this node does not provide it.
fn missing(import: &str) -> Option<(String, Option<&'static str>)> {
    let hint = match split(import) {
        Some((interface, version)) if WASI_P2_INTERFACES.contains(&interface) => match version {
            version if is_p2(version) => return None,
            version if version.starts_with("0.3.") => {
                Some("WASI 0.3 is not offered: build for wasm32-wasip2")
            }
            _ => Some("this is WASI before 0.2: rebuild with a current toolchain"),
        },
        Some((interface, _)) if interface.starts_with("wasi:http/") => {
            Some("wasi:http is not offered by this release")
        }
        Some((interface, _)) if interface.starts_with("wasi:") => {
            Some("this node provides WASI 0.2's command world only")
        }
        Some(_) | None => {
            Some("compose the component with one that exports what it imports (`wac plug`)")
        }
    };
    Some((import.to_owned(), hint))
}

/// `wasi:cli/run@0.2.3` is the interface `wasi:cli/run` of version `0.2.3`.
fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('@')
}

/// Whether `version` is a release of WASI 0.2; its candidates are incompatible.
fn is_p2(version: &str) -> bool {
    version
        .strip_prefix(WASI_P2_VERSIONS)
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether the component has code at all: a core module, or a component within it. A WIT package, which has the same
/// header, consists of types and their names. What cannot be read is left to the validation, which says where.
pub(crate) fn has_code(bytes: &[u8]) -> bool {
    const CORE_MODULE: u8 = 1;
    const COMPONENT: u8 = 4;
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((id, after)) = rest.split_first() {
        if matches!(*id, CORE_MODULE | COMPONENT) {
            return true;
        }
        match leb128(after).and_then(|(length, body)| body.get(length..)) {
            Some(next) => rest = next,
            None => return true,
        }
    }
    false
}

/// An unsigned 32-bit number in LEB128 and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let length = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)? + 1;
    let (number, rest) = bytes.split_at_checked(length)?;
    let value = number.iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((usize::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_of_0_2_are_provided() {
        assert_eq!(missing("wasi:cli/stdout@0.2.0"), None);
        assert_eq!(missing("wasi:sockets/tcp@0.2.12"), None);
        for (import, word) in [
            ("wasi:cli/stdout@0.2.0-rc-2023-11-10", "before 0.2"),
            ("wasi:cli/stdout@0.3.0", "WASI 0.3"),
            ("wasi:http/types@0.2.0", "wasi:http is"),
            ("wasi:keyvalue/store@0.2.0-draft", "command world"),
            ("acme:shop/stock@1.0.0", "wac plug"),
            ("log", "wac plug"),
        ] {
            let (name, hint) = missing(import).unwrap();
            assert_eq!(name, import);
            assert!(hint.unwrap().contains(word), "{import}: {hint:?}");
        }
    }

    #[test]
    fn sections_are_walked_by_their_length() {
        let header = b"\0asm\x0d\0\x01\0";
        let section =
            |id: u8, body: &[u8]| [&[id, u8::try_from(body.len()).unwrap()], body].concat();
        let types = section(7, &[1; 100]);
        assert!(!has_code(&[header.as_slice(), &types, &section(11, b"")].concat()));
        assert!(has_code(&[header.as_slice(), &types, &section(1, b"")].concat()));
        assert!(
            has_code(&[header.as_slice(), b"\x07\xff\xff\xff\xff\xff"].concat()),
            "left to the validation"
        );
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 9]), Some((624_485, &[9][..])));
    }
}
