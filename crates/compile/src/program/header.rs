//! What a file is, by its first bytes.

use crate::input::InputError;

/// The two ways in which programs are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Module,
    Component,
}

/// The first bytes of files that are published by mistake.
const OTHERS: &[(&[u8], &str, &str)] = &[
    (b"\x1f\x8b", "gzip", "unpack it, or publish it as an image layer of a gzip media type"),
    (
        b"\x28\xb5\x2f\xfd",
        "zstd",
        "unpack it, or publish it as an image layer of a zstd media type",
    ),
    (b"PK\x03\x04", "a zip archive", "publish the .wasm in it"),
    (
        b"#!",
        "a script",
        "publish an interpreter that is compiled to WebAssembly, with the script as a file",
    ),
    (b"{", "JSON", "publish the .wasm itself"),
    (b"<", "HTML or XML", "publish the .wasm itself"),
];

/// Looks at the magic bytes and the version (WebAssembly core specification, 5.5.16; component model, "Binary.md").
pub(super) fn encoding(bytes: &[u8]) -> Result<Encoding, InputError> {
    match bytes {
        [] => Err(InputError::Empty),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Encoding::Module),
        [0, b'a', b's', b'm', 13, 0, 1, 0, ..] => Ok(Encoding::Component),
        [0, b'a', b's', b'm', v0, v1, l0, l1, ..] => {
            let [version, layer] = [[*v0, *v1], [*l0, *l1]].map(u16::from_le_bytes);
            Err(InputError::Version { version, layer })
        }
        [0x7f, b'E', b'L', b'F', ..] => Err(InputError::Native),
        other => Err(name(other)),
    }
}

fn name(bytes: &[u8]) -> InputError {
    if bytes.trim_ascii_start().starts_with(b"(module")
        || bytes.trim_ascii_start().starts_with(b"(component")
    {
        return InputError::Text;
    }
    let other = OTHERS.iter().find(|(magic, ..)| bytes.starts_with(magic));
    other.map_or_else(
        || InputError::Unknown {
            head: bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        },
        |(_, what, remedy)| InputError::Other { what, remedy },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_by_version_and_layer() {
        assert_eq!(encoding(b"\0asm\x01\0\0\0rest").unwrap(), Encoding::Module);
        assert_eq!(encoding(b"\0asm\x0d\0\x01\0rest").unwrap(), Encoding::Component);
        assert!(matches!(
            encoding(b"\0asm\x0a\0\x01\0"),
            Err(InputError::Version { version: 10, layer: 1 })
        ));
    }

    #[test]
    fn what_is_no_program_is_named() {
        let table: &[(&[u8], &str)] = &[
            (b"", "empty"),
            (b"\x7fELF\x02\x01", "native code (ELF)"),
            (b"  (module)", "text format"),
            (b"(component)", "text format"),
            (b"\x1f\x8b\x08", "this is gzip"),
            (b"#!/bin/sh", "a script"),
            (b"\xca\xfe\xba\xbe", "cafebabe"),
            (b"\0asm", "0061736d"),
        ];
        for (bytes, word) in table {
            let message = encoding(bytes).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
