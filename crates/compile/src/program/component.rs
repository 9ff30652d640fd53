//! Whether a component is a program for this node, and of which kind.

use nodule_engine::imports::{
    HTTP_HANDLER, HTTP_INCOMING_HANDLER, RUN, WASI_CONFIG, WASI_HTTP_P2_INTERFACES,
    WASI_P2_INTERFACES, WASI_P2_VERSIONS, WASI_P3_INTERFACES, WASI_P3_VERSIONS,
};
use wasmparser::{Parser, Payload};

use super::{Kind, Program, Wasi, invalid};
use crate::input::{InputError, refuse_imports};

/// It exports what starts it, and imports nothing but WASI.
pub(super) fn check(wasm: &[u8]) -> Result<Program, InputError> {
    let component = Component::read(wasm).map_err(invalid)?;
    if !component.has_code {
        return Err(InputError::WitPackage);
    }
    // What it is says more than what it lacks.
    let program =
        component.program().ok_or_else(|| InputError::NoRun { remedy: component.remedy() })?;
    let missing: Vec<_> = component.imports.iter().filter_map(|import| missing(import)).collect();
    refuse_imports(&missing).map(|()| program)
}

/// What is said of a component by the component itself, not by those within it.
#[derive(Default)]
struct Component<'a> {
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
    /// Whether there is a core module or a component in it. A WIT package, which has the same header, consists of types
    /// and their names.
    has_code: bool,
}

impl<'a> Component<'a> {
    fn read(wasm: &'a [u8]) -> wasmparser::Result<Self> {
        let mut component = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            #[expect(clippy::wildcard_enum_match_arm, reason = "no other section is looked into")]
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                    component.has_code = true;
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                payload if depth == 0 => component.take(payload)?,
                _ => {}
            }
        }
        Ok(component)
    }

    fn take(&mut self, payload: Payload<'a>) -> wasmparser::Result<()> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other section is looked into")]
        match payload {
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    self.imports.push(import?.name.name);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    self.exports.push(export?.name.name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A component that could be started both ways serves: those that are made of JavaScript export `wasi:cli/run`
    /// whatever they do.
    fn program(&self) -> Option<Program> {
        let exports = |interface: &str, is_of: fn(&str) -> bool| {
            self.exports
                .iter()
                .filter_map(|export| split(export))
                .any(|(name, version)| name == interface && is_of(version))
        };
        let program = |kind, wasi| Some(Program { kind, wasi });
        match () {
            () if exports(HTTP_INCOMING_HANDLER, is_p2) => program(Kind::Proxy, Wasi::P2),
            () if exports(HTTP_HANDLER, is_p3) => program(Kind::Proxy, Wasi::P3),
            () if exports(RUN, is_p2) => program(Kind::Component, Wasi::P2),
            () if exports(RUN, is_p3) => program(Kind::Component, Wasi::P3),
            () => None,
        }
    }

    fn remedy(&self) -> String {
        let has = |beginning: &str| self.exports.iter().any(|name| name.starts_with(beginning));
        if has("wasi:cli/run@") || has("wasi:http/") {
            "it is of another version of WASI; build for wasm32-wasip2".into()
        } else if self.exports.is_empty() {
            "it exports nothing; build a command (in Rust a `bin` for wasm32-wasip2)".into()
        } else {
            format!(
                "it exports {}; build a command, or compose it with one that calls it",
                self.exports.join(", ")
            )
        }
    }
}

/// The import's name and a hint, if this node does not provide it.
fn missing(import: &str) -> Option<(String, Option<&'static str>)> {
    if import == WASI_CONFIG {
        return None;
    }
    let (interface, version) = split(import).unwrap_or((import, ""));
    let is_p2_interface =
        WASI_P2_INTERFACES.contains(&interface) || WASI_HTTP_P2_INTERFACES.contains(&interface);
    let is_p3_interface = WASI_P3_INTERFACES.contains(&interface);
    let hint = if is_p2_interface && is_p2(version) || is_p3_interface && is_p3(version) {
        return None;
    } else if version.starts_with(WASI_P3_VERSIONS) && is_p3_interface {
        "this is WASI before 0.3: rebuild with a current toolchain"
    } else if is_p2_interface {
        "this is WASI before 0.2: rebuild with a current toolchain"
    } else if [HTTP_INCOMING_HANDLER, HTTP_HANDLER].contains(&interface) {
        "it passes requests on to another component: compose it with that one (`wac plug`)"
    } else if interface.starts_with("wasi:") {
        "this node provides the command and HTTP interfaces of WASI 0.2 and 0.3 only: build without what needs another"
    } else {
        "compose the component with one that exports what it imports (`wac plug`)"
    };
    Some((import.to_owned(), Some(hint)))
}

/// `wasi:cli/run@0.2.3` is the interface `wasi:cli/run` of version `0.2.3`.
fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('@')
}

fn is_p2(version: &str) -> bool {
    is_release(version, WASI_P2_VERSIONS)
}

fn is_p3(version: &str) -> bool {
    is_release(version, WASI_P3_VERSIONS)
}

/// Whether `version` is a release of those that begin so; candidates are incompatible.
fn is_release(version: &str, beginning: &str) -> bool {
    version
        .strip_prefix(beginning)
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_offered_may_be_imported() {
        for import in [
            "wasi:cli/stdout@0.2.0",
            "wasi:sockets/tcp@0.2.12",
            "wasi:http/types@0.2.0",
            "wasi:config/store@0.2.0-rc.1",
        ] {
            assert_eq!(missing(import), None);
        }
        for (import, word) in [
            ("wasi:cli/stdout@0.2.0-rc-2023-11-10", "before 0.2"),
            ("wasi:http/incoming-handler@0.2.0", "passes requests on"),
            ("wasi:keyvalue/store@0.2.0-draft", "command and HTTP"),
            ("acme:shop/stock@1.0.0", "wac plug"),
            ("log", "wac plug"),
        ] {
            let (name, hint) = missing(import).unwrap();
            assert_eq!(name, import);
            assert!(hint.unwrap().contains(word), "{import}: {hint:?}");
        }
    }

    #[test]
    fn releases_of_wasi_0_3_may_be_imported() {
        for import in
            ["wasi:cli/stdout@0.3.0", "wasi:http/client@0.3.2", "wasi:clocks/system-clock@0.3.0"]
        {
            assert_eq!(missing(import), None);
        }
        let (_, hint) = missing("wasi:cli/stdout@0.3.0-rc-2026-01-01").unwrap();
        assert!(hint.unwrap().contains("0.3"), "{hint:?}");
    }
}
