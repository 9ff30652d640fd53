//! What a Wasm binary says of itself in its first eight bytes, and the compiler of the rest.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

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

/// What to do about a program that is none.
pub(crate) const INSTEAD: &str = "use a WASI command or a component that answers HTTP, for example of `cargo build --target wasm32-wasip2`";

/// The most bytes of a module's exports that are looked at.
const EXPORTS: u64 = 1 << 20;
/// Exports by which a host's plug-ins are known, and what they are.
const PLUGINS: [(&[u8], &str); 2] = [
    (b"proxy_abi_version_", "a plug-in for Envoy (proxy-wasm), which needs Envoy"),
    (b"__guest_call", "a waPC guest such as a Kubewarden policy, which needs its own host"),
];

/// Looks what a file is, before anything else does. What cannot be run is named.
pub(crate) fn look(path: &Path) -> io::Result<Result<Kind, &'static str>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut start = Vec::new();
    (&mut file).take(8).read_to_end(&mut start)?;
    let kind = match Kind::of(&start) {
        Ok(kind) => kind,
        Err(found) => return Ok(Err(found)),
    };
    let exports = if kind == Kind::Module { exports(&mut file)? } else { Vec::new() };
    let is_in = |name: &[u8]| exports.windows(name.len()).any(|window| window == name);
    let plugin = PLUGINS.iter().find(|(name, _)| is_in(name));
    Ok(plugin.map_or(Ok(kind), |(_, what)| Err(what)))
}

/// The beginning of a module's export section, if it has one (core specification 5.5.10). What is malformed is for the
/// compiler to say.
fn exports(module: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    let mut section = Vec::new();
    loop {
        let mut id = [0];
        if module.read(&mut id)? == 0 {
            return Ok(section);
        }
        let Some(size) = length(module)? else { return Ok(section) };
        if id == [7] {
            module.take(u64::from(size).min(EXPORTS)).read_to_end(&mut section)?;
            return Ok(section);
        }
        module.seek(SeekFrom::Current(size.into()))?;
    }
}

/// An unsigned LEB128 number of 32 bits; none if it is longer, or cut.
fn length(module: &mut impl Read) -> io::Result<Option<u32>> {
    let mut value = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let mut byte = [0];
        if module.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let [byte] = byte;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(u32::try_from(value).ok());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(content: &[u8]) -> Result<Kind, &'static str> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        std::fs::write(&path, content).unwrap();
        look(&path).unwrap()
    }

    #[test]
    fn plug_ins_are_known_by_what_they_export() {
        let export = |name: &str| {
            let length = |length: usize| u8::try_from(length).unwrap();
            let custom = b"\x00\x82\x00\x01c";
            let body = [&[1, length(name.len())], name.as_bytes(), b"\0\0"].concat();
            [b"\0asm\x01\0\0\0", &custom[..], &[7, length(body.len())], &body].concat()
        };
        assert_eq!(looked(&export("_start")), Ok(Kind::Module));
        assert!(looked(&export("proxy_abi_version_0_2_1")).unwrap_err().contains("Envoy"));
        assert!(looked(&export("__guest_call")).unwrap_err().contains("waPC"));
        for cut in 8..20 {
            assert_eq!(looked(&export("__guest_call")[..cut]), Ok(Kind::Module));
        }
        assert_eq!(looked(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\xff\xff"), Ok(Kind::Module));
    }

    #[test]
    fn the_magic_tells_what_a_file_is() {
        assert_eq!(Kind::of(b"\0asm\x01\0\0\0"), Ok(Kind::Module));
        assert_eq!(Kind::of(b"\0asm\x0d\0\x01\0"), Ok(Kind::Component));
        for bad in [&b"\x7fELF\x02\x01\x01\0"[..], b"\0asm", b"\0asm\x02\0\0\0", b"", b"(module)"] {
            assert!(Kind::of(bad).is_err(), "{bad:?}");
        }
    }
}
