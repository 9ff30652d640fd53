//! What a Wasm binary says of itself in its first eight bytes, and the compiler of the rest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A core module.
    Module,
    /// A component: once it is compiled it is known to be a command.
    Component,
    /// A component that answers HTTP requests: WASI's world `proxy`, or since 0.3 `service`. Only compiling tells.
    Proxy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Module => "module",
            Self::Component => "component",
            Self::Proxy => "proxy",
        })
    }
}

/// `\0asm`, version 1, layer 0 (core specification 5.5.16).
const MODULE: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];
/// `\0asm`, version 13, layer 1 (component model, Binary.md).
const COMPONENT: [u8; 8] = [0, b'a', b's', b'm', 13, 0, 1, 0];

impl Kind {
    /// Reads the kind from a file's first bytes. What is not Wasm is named.
    pub(crate) fn of(start: &[u8]) -> Result<Self, &'static str> {
        match start {
            _ if start == MODULE => Ok(Self::Module),
            _ if start == COMPONENT => Ok(Self::Component),
            [0, b'a', b's', b'm', ..] => Err("Wasm of an unknown version"),
            [0x7f, b'E', b'L', b'F', ..] => Err("native code (ELF)"),
            [0x1f, 0x8b, ..] => Err("gzip data"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Err("zstd data"),
            [b'(', ..] => Err("text, perhaps the Wasm text format"),
            _ => Err("unknown data"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_tells_what_a_file_is() {
        assert_eq!(Kind::of(b"\0asm\x01\0\0\0"), Ok(Kind::Module));
        assert_eq!(Kind::of(b"\0asm\x0d\0\x01\0"), Ok(Kind::Component));
        for bad in [&b"\x7fELF\x02\x01\x01\0"[..], b"\0asm", b"\0asm\x02\0\0\0", b"", b"(module)"] {
            assert!(Kind::of(bad).is_err(), "{bad:?}");
        }
    }
}
