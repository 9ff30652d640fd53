//! The node's own mark on what it compiled: a MAC whose key never leaves the node.
//!
//! A bit that flips in compiled code is no trap but undefined behaviour, and so is code that somebody else put there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use ring::hmac::{self, Context, HMAC_SHA256};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store::{Store, StoreError};
use crate::wasm::Kind;

/// Bytes of the key: as many as HMAC-SHA256 gives out (RFC 2104, section 3).
const KEY: usize = 32;
/// Names what is sealed, and how: another way of sealing has another name.
const DOMAIN: &str = "nodule compiled code 1";

/// The key of this node.
pub(crate) struct Key(hmac::Key);

/// What is known of compiled code, and the seal over it and the code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Label {
    /// What starts the program.
    pub(crate) kind: Kind,
    /// Bytes of compiled code.
    pub(crate) size: u64,
    /// Hex digits.
    seal: String,
}

/// What compiled code is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) engine: &'a str,
    pub(crate) program: &'a Digest,
}

impl Key {
    /// Reads the key, or makes it where there is none. Whatever else is wrong is an error: another key makes all that was
    /// compiled worthless.
    pub(crate) fn open(store: &Store) -> Result<Self, StoreError> {
        let path = store.key();
        match fs::read(&path) {
            Ok(bytes) if bytes.len() == KEY => Ok(Self(hmac::Key::new(HMAC_SHA256, &bytes))),
            Ok(bytes) => {
                let words = format!(
                    "it has {} bytes and not {KEY}; remove it, and all programs are compiled again",
                    bytes.len()
                );
                Err(StoreError::on("read the key", &path)(io::Error::other(words)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(store, &path),
            Err(error) => Err(StoreError::on("read the key", &path)(error)),
        }
    }

    fn make(store: &Store, path: &Path) -> Result<Self, StoreError> {
        let bytes: [u8; KEY] = rand::random();
        store.write(path, &bytes, 0o600)?;
        Ok(Self(hmac::Key::new(HMAC_SHA256, &bytes)))
    }

    /// Seals the code at `path`.
    pub(crate) fn seal(
        &self,
        of: Subject<'_>,
        kind: Kind,
        path: &Path,
    ) -> Result<Label, StoreError> {
        let file = open(path)?;
        let size = file.metadata().map_err(StoreError::on("look at", path))?.len();
        let seal = self.mac(of, kind, size, file).map_err(StoreError::on("read", path))?;
        Ok(Label { kind, size, seal })
    }

    /// Whether the code at `path` is what `label` was made for.
    pub(crate) fn is_sound(
        &self,
        of: Subject<'_>,
        label: &Label,
        path: &Path,
    ) -> Result<bool, StoreError> {
        let Label { kind, size, seal } = label;
        let file = open(path)?;
        if file.metadata().map_err(StoreError::on("look at", path))?.len() != *size {
            return Ok(false);
        }
        let mac = self.mac(of, *kind, *size, file).map_err(StoreError::on("read", path))?;
        // Who could measure how long this takes can read the key too.
        Ok(mac == *seal)
    }

    /// The lines in front of the code hold no line breaks, so that each code has one form only.
    fn mac(&self, of: Subject<'_>, kind: Kind, size: u64, mut code: File) -> io::Result<String> {
        let mut context = Context::with_key(&self.0);
        let Subject { engine, program } = of;
        context.update(format!("{DOMAIN}\n{engine}\n{program}\n{kind}\n{size}\n").as_bytes());
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match code.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => context.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(StoreError::on("open", path))
}
