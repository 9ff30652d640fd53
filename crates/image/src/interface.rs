//! What a Wasm binary asks of its host and offers to it, read from its sections without compiling any of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wasmparser::{BinaryReaderError, Parser, Payload};

/// The most imports, and the most exports, that are told.
const MOST: usize = 1000;

/// Imports and exports of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The WASI that it is made for: `0.1`, or the newest version of `wasi:…` that a component names; none where it
    /// names none.
    pub wasi: Option<String>,
    /// Of a module the names of the modules that it imports from, of a component the interfaces.
    pub imports: Vec<String>,
    /// Names of what it exports.
    pub exports: Vec<String>,
}

impl Interface {
    /// Reads the outermost module or component; what is inside of a component is its own affair.
    pub(crate) fn of(program: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut names = Names::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(program) {
            let payload = payload?;
            if matches!(payload, Payload::Version { .. }) {
                depth += 1;
            } else if matches!(payload, Payload::End(_)) {
                depth = depth.saturating_sub(1);
            } else if depth == 1 {
                names.add(payload)?;
            }
        }
        let Names { imports, exports } = names;
        let versions = imports.iter().chain(&exports).filter_map(|name| version(name));
        let wasi = versions.max_by(|a, b| a.1.cmp(&b.1)).map(|(text, _)| text);
        let list = |names: BTreeSet<String>| names.into_iter().take(MOST).collect();
        Ok(Self { wasi, imports: list(imports), exports: list(exports) })
    }
}

#[derive(Default)]
struct Names {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else has names of these kinds")]
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imports.insert(import?.module.to_owned());
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    self.exports.insert(export?.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    self.imports.insert(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.exports.insert(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The version of WASI that a name is of, as it is written and as it is compared.
fn version(name: &str) -> Option<(String, Vec<u64>)> {
    let text = match name {
        "wasi_snapshot_preview1" => "0.1",
        "wasi_unstable" => "0.0",
        name => name.strip_prefix("wasi:")?.split_once('@')?.1,
    };
    let parts = text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
    Some((text.to_owned(), parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_imports_and_exports_are_told_with_its_wasi() {
        let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\
            \x02\x20\x01\x16wasi_snapshot_preview1\x05sched\0\0\
            \x07\x0a\x01\x06_start\0\0";
        let interface = Interface::of(module).unwrap();
        assert_eq!(interface.wasi.as_deref(), Some("0.1"));
        assert_eq!(interface.imports, ["wasi_snapshot_preview1"]);
        assert_eq!(interface.exports, ["_start"]);
    }

    #[test]
    fn a_component_names_versions_and_the_newest_counts() {
        let versions = ["wasi:cli/run@0.2.10", "wasi:io/streams@0.2.9", "a:b/c@9.0.0", "wasi:x/y"];
        let newest = versions.iter().filter_map(|name| version(name)).max_by(|a, b| a.1.cmp(&b.1));
        assert_eq!(newest.unwrap().0, "0.2.10");
    }

    #[test]
    fn what_is_cut_is_an_error() {
        assert!(Interface::of(b"\0asm\x01\0\0\0\x01\x04\x01").is_err());
    }
}
