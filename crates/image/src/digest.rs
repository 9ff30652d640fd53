//! sha256 digests, the only kind that content is stored by.

use std::fmt;

use ring::digest::{self, Context, SHA256};
use serde::{Deserialize, Serialize};

/// The sha256 of some content, held as its 64 lower-case hex digits.
///
/// The OCI descriptor specification registers sha512 too, but no registry or tool
/// that packages Wasm writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(String);

impl Digest {
    /// Reads `sha256:<64 lower-case hex digits>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (hex.len() == 64 && hex.bytes().all(lower_hex)).then(|| Self(hex.to_owned()))
    }

    pub(crate) fn of(content: &[u8]) -> Self {
        Self::from_ring(&digest::digest(&SHA256, content))
    }

    /// The digits alone: the name of files.
    pub(crate) fn hex(&self) -> &str {
        &self.0
    }

    fn from_ring(value: &digest::Digest) -> Self {
        Self(value.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a sha256 digest"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Computes the digest of content that arrives in pieces.
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::from_ring(&self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn content_in_pieces_has_the_digest_of_the_whole() {
        let mut hasher = Hasher::new();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        assert!(Digest::parse(EMPTY).is_some());
        for bad in
            [&EMPTY.to_uppercase(), &EMPTY[..70], "sha512:00", "", "sha256:", "sha256:../../x"]
        {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
