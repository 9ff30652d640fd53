//! Everything in this crate that reads what a stranger wrote, as functions of bytes that must neither panic nor do harm.
//!
//! The tests below run them over a corpus and over mutations of it. `fuzz/` runs them under a fuzzer, with
//! the sanitiser of addresses: `e2e/just fuzz layer`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::Limits;
use crate::challenge::Challenge;
use crate::classify::classify;
use crate::digest::Digest;
use crate::hosts;
use crate::keyring::Keyring;
use crate::manifest::{ArtifactConfig, ImageConfig, Manifest};
use crate::platform;
use crate::provider::{self, Provider};
use crate::reference::Reference;
use crate::tree::{self, Layer};

/// A manifest or an index.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    let plan = classify(&manifest).map_err(|problem| problem.to_string());
    if let Ok(plan) = plan {
        let layers = manifest.layers.as_ref().map_or(0, Vec::len);
        assert!(plan.layers.len() + usize::from(plan.wasm.is_some()) <= layers);
    }
    let entries = manifest.manifests.unwrap_or_default();
    let chosen = platform::choose(&entries).or(platform::native(&entries));
    if chosen.is_none() {
        drop(platform::none(&entries).to_string());
    }
    platform::silent(&entries).for_each(|entry| drop(Digest::parse(&entry.digest)));
}

/// An image's or an artifact's configuration.
pub fn configuration(data: &[u8]) {
    drop(serde_json::from_slice::<ArtifactConfig>(data));
    let Ok(config) = serde_json::from_slice::<ImageConfig>(data) else { return };
    let _ = config.is_native(&std::collections::BTreeMap::new());
    let settings = crate::Settings::from(config.config.unwrap_or_default());
    assert!(settings.env.iter().all(|(name, _)| !name.contains('=')));
}

/// A layer of files, compressed or not: applied twice, so that it also hides files of its own. Nothing outside changes.
pub fn layer(data: &[u8]) {
    let place = tempfile::tempdir().expect("a folder");
    let path = |name: &str| place.path().join(name);
    fs::create_dir(path("outside")).expect("a folder");
    for (name, content) in [("outside/victim", &b"alive"[..]), ("blob", data)] {
        fs::write(path(name), content).expect("a file");
    }
    // Right for a layer that is not compressed; of others the end is refused, after all of it was applied.
    let layer = Layer { blob: path("blob"), diff: Digest::of(data) };
    let limits = Limits { unpacked: 16 << 20, files: 1000, ..Limits::default() };
    let grown = tree::fill(&path("root"), &[layer.clone(), layer], &limits);
    drop(grown.map_err(|error| format!("{error:?}")));
    assert_eq!(names(place.path()), ["blob", "outside", "root"]);
    assert_eq!(names(&path("outside")), ["victim"]);
    assert_eq!(fs::read(path("outside/victim")).expect("a file"), b"alive");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The `hosts.toml` of a registry.
pub fn hosts(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("r.io");
    fs::create_dir(&own).expect("a folder");
    fs::write(own.join("hosts.toml"), data).expect("a file");
    let image = Reference::parse("r.io/a:1").expect("a name");
    for host in hosts::hosts(Some(folder.path()), &image, false).into_iter().flatten() {
        assert!(host.base.starts_with("http://") || host.base.starts_with("https://"));
        assert!(!host.base.ends_with('/'), "{}", host.base);
    }
}

/// A registry's challenge.
pub fn challenge(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    for challenge in Challenge::read(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)])) {
        // A byte that is no text is shown as three.
        assert!(challenge.parameter("realm").is_none_or(|realm| realm.len() <= 3 * data.len()));
    }
}

/// The name of an image.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let again = Reference::parse(&reference.to_string());
        assert_eq!(again.as_ref(), Ok(&reference));
        assert!(
            PathBuf::from(reference.name())
                .components()
                .all(|part| { matches!(part, std::path::Component::Normal(_)) })
        );
    }
}

/// A pull secret.
pub fn secret(data: &[u8]) {
    let image = Reference::parse("registry.example:5000/team/app").expect("a name");
    for (kind, key) in [("dockerconfigjson", ".dockerconfigjson"), ("dockercfg", ".dockercfg")] {
        let mut keyring = Keyring::default();
        let added = keyring.add_secret(&format!("kubernetes.io/{kind}"), [(key, data)]);
        drop(added.map_err(|error| error.to_string()));
        drop(keyring.credentials(&image));
    }
}

/// What a credential provider says.
pub fn answer(data: &[u8]) {
    let version = "credentialprovider.kubelet.k8s.io/v1".to_owned();
    provider::read(
        &Provider {
            name: "p".to_owned(),
            program: PathBuf::new(),
            images: Vec::new(),
            cache: Duration::ZERO,
            version,
            args: Vec::new(),
            env: Vec::new(),
            token: None,
        },
        data,
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use tar::{EntryType, Header};

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 8] = [
        ("manifest", manifest),
        ("configuration", configuration),
        ("layer", layer),
        ("hosts", hosts),
        ("challenge", challenge),
        ("reference", reference),
        ("secret", secret),
        ("answer", answer),
    ];

    /// The corpus of one target.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut paths: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    #[test]
    fn all_of_the_corpus_is_read() {
        for (name, target) in TARGETS {
            let all = corpus(name);
            assert!(!all.is_empty(), "{name}");
            all.iter().for_each(|one| target(one));
        }
    }

    #[derive(Debug, Clone)]
    enum Change {
        Set(Index, u8),
        Cut(Index, Index),
        Repeat(Index, Index),
        Insert(Index, Vec<u8>),
    }

    fn change() -> impl Strategy<Value = Change> {
        let words = [
            &b"sha256:"[..],
            b"../",
            b"\"",
            b"\0",
            b"\xff\xff\xff\xff",
            b"99999999999999999999",
            b".wh.",
        ];
        let words = select(words.map(<[u8]>::to_vec).to_vec());
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
            (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Cut(a, b)),
            (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Repeat(a, b)),
            (any::<Index>(), words).prop_map(|(at, word)| Change::Insert(at, word)),
        ]
    }

    fn changed(mut data: Vec<u8>, changes: &[Change]) -> Vec<u8> {
        for change in changes.iter().filter(|_| !data.is_empty()).cloned().collect::<Vec<_>>() {
            if data.is_empty() {
                break;
            }
            let len = data.len();
            let range = |a: Index, b: Index| {
                let (a, b) = (a.index(len), b.index(len));
                a.min(b)..a.max(b)
            };
            match change {
                Change::Set(at, byte) => data[at.index(len)] = byte,
                Change::Cut(a, b) => drop(data.drain(range(a, b))),
                Change::Repeat(a, b) => data.extend_from_within(range(a, b)),
                Change::Insert(at, word) => drop(data.splice(at.index(len)..at.index(len), word)),
            }
        }
        data
    }

    /// The checksums of the headers made right again: else a change of a header is seen before anything else.
    fn mended(mut data: Vec<u8>) -> Vec<u8> {
        for block in data.as_chunks_mut::<512>().0 {
            let header = Header::from_byte_slice(block);
            if header.as_ustar().is_some() || header.as_gnu().is_some() {
                let mut header = header.clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        data
    }

    /// A layer of entries with names that meet each other, and lead out where they can.
    fn entries() -> impl Strategy<Value = Vec<u8>> {
        let some = |words: &[&'static str]| select(words.to_vec());
        let link = (some(&["a", "b"]), some(&["../outside", "../../outside", "/", "b"]));
        let last = some(&["a", "b", "victim", ".wh.a", ".wh.victim", ".wh..wh..opq"]);
        let file = (some(&["a", "b"]), last, 0..600_usize);
        let twin = (some(&["a", "b", "c"]), some(&["a", "b/victim", "../outside/victim"]));
        let other = some(&["a", "a/b", "../outside/a", "a/.wh..."]);
        let empty = |kind, name: &str, target: &str| (kind, name.to_owned(), target.to_owned(), 0);
        let entry = prop_oneof![
            4 => link.prop_map(move |(name, target)| empty(EntryType::Symlink, name, target)),
            4 => file.prop_map(|(folder, last, size)| {
                (EntryType::Regular, format!("{folder}/{last}"), String::new(), size)
            }),
            1 => twin.prop_map(move |(name, target)| empty(EntryType::Link, name, target)),
            1 => other.prop_map(move |name| empty(EntryType::Directory, name, "")),
        ];
        prop::collection::vec(entry, 2..8).prop_map(|entries| {
            let mut archive = Vec::new();
            for (kind, name, target, size) in entries {
                let mut header = Header::new_ustar();
                let fields = header.as_ustar_mut().unwrap();
                fields.name[..name.len()].copy_from_slice(name.as_bytes());
                fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
                header.set_entry_type(kind);
                header.set_size(size as u64);
                header.set_mode(0o7777);
                header.set_cksum();
                archive.extend_from_slice(header.as_bytes());
                archive.resize(archive.len() + size.next_multiple_of(512), b'x');
            }
            archive.resize(archive.len() + 1024, 0);
            archive
        })
    }

    proptest! {
        #[test]
        fn what_is_like_the_corpus_is_read_or_refused(
            which in any::<Index>(),
            changes in prop::collection::vec(change(), 1..6),
        ) {
            for (name, target) in TARGETS {
                let all = corpus(name);
                let data = changed(which.get(&all).clone(), &changes);
                target(&data);
                if name == "layer" {
                    target(&mended(data));
                }
            }
        }

        #[test]
        fn no_layer_reaches_out_of_its_tree(data in entries()) {
            layer(&data);
        }
    }
}
