//! Names of files in a layer: what they may be, and what they say (image specification, "Whiteouts").

use super::error::{LayerError, shown};

/// The longest name in bytes, and the most folders in it: deeper trees are hard to remove again.
const LENGTH: usize = 4096;
const DEPTH: usize = 256;
/// Linux' own.
const PART: usize = 255;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept for itself; it means nothing to anybody else.
const AUFS: &[u8] = b".wh..wh.";
/// What eStargz adds to a layer for who reads it lazily.
const STARGZ: [&[u8]; 3] = [b"stargz.index.json", b".prefetch.landmark", b".no.prefetch.landmark"];

/// A name without a leading `/`, without `.` and empty parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    parts: Vec<Vec<u8>>,
}

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A file of any type.
    File(Name),
    /// The root itself, or what is no file of the image.
    Nothing,
    /// Hides this name in the layers below.
    Hide(Name),
    /// Hides all that the layers below have in this folder.
    HideAll(Name),
}

impl Name {
    /// Reads a name as a layer has it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, LayerError> {
        let bad = |why| LayerError::Name { name: shown(text), why };
        if text.len() > LENGTH {
            return Err(bad("it is too long"));
        }
        if text.contains(&0) {
            return Err(bad("it has a NUL in it"));
        }
        let parts: Vec<_> = text
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect();
        match () {
            () if parts.iter().any(|part| part == b"..") => {
                Err(LayerError::Escape { name: shown(text) })
            }
            () if parts.iter().any(|part| part.len() > PART) => Err(bad("a part is too long")),
            () if parts.len() > DEPTH => Err(bad("it is too deep")),
            () => Ok(Self { parts }),
        }
    }

    /// Where a link to `target` leads from the folder `from`, by the letter, and never above the root; none if that is too deep.
    pub(super) fn led(from: &[u8], target: &[u8]) -> Option<Self> {
        let from = if target.starts_with(b"/") { &b""[..] } else { from };
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for part in [from, target].into_iter().flat_map(|path| path.split(|byte| *byte == b'/')) {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part.to_vec()),
            }
        }
        (parts.len() <= DEPTH).then_some(Self { parts })
    }

    /// The folder and the last part; none for the root.
    pub(super) fn split(&self) -> Option<(Self, &[u8])> {
        let (last, folder) = self.parts.split_last()?;
        Some((Self { parts: folder.to_vec() }, last))
    }

    /// The folders on the way to it, the root left out.
    pub(super) fn above(&self) -> impl Iterator<Item = Self> {
        (1..self.parts.len())
            .map(|depth| Self { parts: self.parts.iter().take(depth).cloned().collect() })
    }

    /// As a path relative to the root, `.` for the root itself.
    pub(super) fn path(&self) -> Vec<u8> {
        if self.parts.is_empty() { b".".to_vec() } else { self.parts.join(&b'/') }
    }

    fn beside(&self, last: &[u8]) -> Self {
        let mut parts = self.parts.clone();
        parts.pop();
        parts.push(last.to_vec());
        Self { parts }
    }
}

/// What a name of a layer asks for.
pub(super) fn meaning(text: &[u8]) -> Result<Meaning, LayerError> {
    let name = Name::parse(text)?;
    let Some((folder, last)) = name.split() else { return Ok(Meaning::Nothing) };
    if let Some(part) = folder.parts.iter().find(|part| part.starts_with(WHITEOUT)) {
        if part.starts_with(AUFS) {
            return Ok(Meaning::Nothing);
        }
        return Err(LayerError::Name { name: shown(text), why: "a folder cannot begin with .wh." });
    }
    let Some(hidden) = last.strip_prefix(WHITEOUT) else {
        let is_stargz = folder.parts.is_empty() && STARGZ.contains(&last);
        return Ok(if is_stargz { Meaning::Nothing } else { Meaning::File(name) });
    };
    match last {
        OPAQUE => Ok(Meaning::HideAll(folder)),
        _ if matches!(hidden, b"" | b"." | b"..") => {
            Err(LayerError::Whiteout { name: shown(text), hidden: shown(hidden) })
        }
        _ if last.starts_with(AUFS) => Ok(Meaning::Nothing),
        _ => Ok(Meaning::Hide(name.beside(hidden))),
    }
}

/// Whether a folder this deep can have another in it.
pub(super) fn is_too_deep(path: &[u8]) -> bool {
    path.iter().filter(|byte| **byte == b'/').count() >= DEPTH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Option<String> {
        let name = Name::parse(text.as_bytes()).ok()?;
        Some(String::from_utf8(name.path()).unwrap())
    }

    #[test]
    fn names_are_taken_below_the_root_or_refused() {
        for (text, expected) in [
            ("a/b", Some("a/b")),
            ("/abs", Some("abs")),
            ("./a//b/", Some("a/b")),
            ("./", Some(".")),
            ("", Some(".")),
            ("...", Some("...")),
            ("../a", None),
            ("a/../../b", None),
            ("a/..", None),
            ("a\0b", None),
        ] {
            assert_eq!(path(text).as_deref(), expected, "{text:?}");
        }
        assert_eq!(path(&"a".repeat(256)), None);
        assert_eq!(path(&"a/".repeat(257)), None);
        assert_eq!(path(&"abcdefgh/".repeat(500)), None);
        assert!(path(&"a/".repeat(256)).is_some());
    }

    #[test]
    fn a_link_leads_from_its_folder_and_not_out() {
        let led = |from: &str, target: &str| {
            let name = Name::led(from.as_bytes(), target.as_bytes())?;
            Some(String::from_utf8(name.path()).unwrap())
        };
        for (from, target, to) in [
            ("a/b", "c", "a/b/c"),
            ("a/b", "../c/./d", "a/c/d"),
            ("a/b", "/c", "c"),
            ("a", "../../../c", "c"),
            ("", "..", "."),
        ] {
            assert_eq!(led(from, target).as_deref(), Some(to), "{from} {target}");
        }
        assert_eq!(led("a", &"a/".repeat(256)), None);
    }

    #[test]
    fn whiteouts_hide_what_they_name_and_nothing_else() {
        let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
        for (text, expected) in [
            ("d/.wh.a", Meaning::Hide(name("d/a"))),
            (".wh.a", Meaning::Hide(name("a"))),
            (".wh....", Meaning::Hide(name("..."))),
            ("d/.wh..wh..opq", Meaning::HideAll(name("d"))),
            (".wh..wh..opq", Meaning::HideAll(name(""))),
            (".wh..wh.plnk", Meaning::Nothing),
            (".wh..wh.plnk/1.2", Meaning::Nothing),
            ("stargz.index.json", Meaning::Nothing),
            ("d/stargz.index.json", Meaning::File(name("d/stargz.index.json"))),
            ("d/.whale", Meaning::File(name("d/.whale"))),
            ("./", Meaning::Nothing),
        ] {
            assert_eq!(meaning(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for bad in [".wh.", "d/.wh.", ".wh..", "d/.wh...", "../.wh.passwd", ".wh.d/a"] {
            assert!(meaning(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_climbs_and_its_path_is_its_own(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(name) = Name::parse(&text) {
                let path = name.path();
                prop_assert!(!path.starts_with(b"/"));
                prop_assert!(path.split(|byte| *byte == b'/').all(|part| part != b".."));
                prop_assert_eq!(Name::parse(&path).unwrap(), name);
            }
        }

        #[test]
        fn nothing_that_is_made_begins_like_a_whiteout(text in "[.wha/opq]{0,20}") {
            if let Ok(Meaning::File(name)) = meaning(text.as_bytes()) {
                let path = name.path();
                prop_assert!(path.split(|byte| *byte == b'/').all(|part| !part.starts_with(WHITEOUT)));
            }
        }
    }
}
