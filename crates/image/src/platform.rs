//! Which entry of an index is the one for Wasm.

use crate::error::Problem;
use crate::manifest::{Descriptor, Platform, is_marked};

/// The most entries that are looked into because they say nothing of themselves.
const LOOKED_INTO: usize = 8;
/// The most entries that are named.
const SHOWN: usize = 32;

/// Chooses the Wasm entry: the newest WASI that runs here first, then the index's own order.
///
/// An entry without a platform is an artifact; it counts if its type speaks of Wasm.
pub(crate) fn choose(entries: &[Descriptor]) -> Option<&Descriptor> {
    let ranked = candidates(entries).filter_map(|entry| Some((rank(entry)?, entry)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// Entries that say neither a platform nor a type: only their manifests tell what they are.
pub(crate) fn silent(entries: &[Descriptor]) -> impl Iterator<Item = &Descriptor> {
    let is_silent = |entry: &&Descriptor| entry.platform.is_none() && entry.artifact_type.is_none();
    candidates(entries).filter(is_silent).take(LOOKED_INTO)
}

/// The entry of this machine's own platform, which old images have their Wasm in.
pub(crate) fn native(entries: &[Descriptor]) -> Option<&Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let is_own =
        |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
    candidates(entries).find(|entry| entry.platform.as_ref().is_some_and(is_own))
}

/// The entry whose files a volume has where none is for Wasm: that of this machine, else one of no platform, else the only
/// one. Nothing of it is executed, so that files for another machine are files, too.
pub(crate) fn any(entries: &[Descriptor]) -> Option<&Descriptor> {
    let free = || candidates(entries).find(|entry| entry.platform.is_none());
    let only = || candidates(entries).next().filter(|_| candidates(entries).nth(1).is_none());
    native(entries).or_else(free).or_else(only)
}

/// What an index has instead of an entry for Wasm.
pub(crate) fn none(entries: &[Descriptor]) -> Problem {
    let shown = entries.iter().filter(|entry| !is_attestation(entry)).map(shown);
    Problem::NoPlatform { platforms: shown.take(SHOWN).collect() }
}

fn candidates(entries: &[Descriptor]) -> impl Iterator<Item = &Descriptor> {
    entries.iter().filter(|entry| !is_attestation(entry))
}

/// BuildKit lists an image's provenance beside it, for the platform unknown/unknown.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
}

/// Smaller is better; none if the entry is not for Wasm.
fn rank(entry: &Descriptor) -> Option<u8> {
    let Some(platform) = &entry.platform else {
        let kind = entry.artifact_type.as_deref()?;
        return (kind == "application/wasm" || kind.contains(".wasm.")).then_some(4);
    };
    let is_wasm = |text: &str| matches!(text, "wasm" | "wasm32" | "wasm64");
    // Some tools write the two the other way round.
    let os = match (platform.os.as_str(), platform.architecture.as_str()) {
        (os, architecture) if is_wasm(architecture) => os,
        (os, architecture) if is_wasm(os) && architecture.starts_with("wasi") => architecture,
        _ => return is_marked(&entry.annotations).then_some(5),
    };
    Some(match os.to_ascii_lowercase().as_str() {
        "wasip2" => 0,
        "wasip1" => 1,
        "wasi" => 2,
        _ => 3,
    })
}

fn shown(entry: &Descriptor) -> String {
    match (&entry.platform, &entry.artifact_type) {
        (Some(platform), _) => format!("{}/{}", platform.os, platform.architecture),
        (None, Some(kind)) => kind.clone(),
        (None, None) => "an entry without a platform".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> Descriptor {
        let (os, architecture) = platform.split_once('/').unwrap();
        let platform = Platform { os: os.to_owned(), architecture: architecture.to_owned() };
        Descriptor {
            digest: format!("{os}/{architecture}"),
            platform: Some(platform),
            ..Descriptor::default()
        }
    }

    fn chosen(platforms: &[&str]) -> Result<String, String> {
        let entries: Vec<_> = platforms.iter().map(|platform| entry(platform)).collect();
        choose(&entries).map(|entry| entry.digest.clone()).ok_or_else(|| none(&entries).to_string())
    }

    #[test]
    fn the_newest_wasi_that_runs_here_is_chosen() {
        for (platforms, expected) in [
            (&["linux/amd64", "wasi/wasm"][..], "wasi/wasm"),
            (&["wasip1/wasm", "wasip2/wasm"], "wasip2/wasm"),
            (&["wasip3/wasm", "wasi/wasm32"], "wasi/wasm32"),
            (&["linux/amd64", "linux/wasm"], "linux/wasm"),
            (&["linux/arm64", "wasm32/wasi"], "wasm32/wasi"),
        ] {
            assert_eq!(chosen(platforms).unwrap(), expected);
        }
    }

    #[test]
    fn an_index_without_wasm_is_refused_with_what_it_has() {
        let text = chosen(&["linux/amd64", "linux/arm64", "unknown/unknown"]).unwrap_err();
        assert!(text.contains("linux/amd64, linux/arm64"), "{text}");
    }

    #[test]
    fn artifacts_count_by_their_type_and_attestations_never() {
        let artifact = Descriptor {
            digest: "artifact".to_owned(),
            artifact_type: Some("application/vnd.wasm.config.v0+json".to_owned()),
            ..Descriptor::default()
        };
        let mut attestation = entry("wasi/wasm");
        let key = "vnd.docker.reference.type".to_owned();
        attestation.annotations.insert(key, "attestation-manifest".to_owned());
        assert_eq!(choose(&[attestation, artifact]).unwrap().digest, "artifact");
    }

    #[test]
    fn a_marked_entry_is_wasm_and_the_own_platform_is_the_last_resort() {
        let mut marked = entry("linux/s390x");
        let variant = ("module.wasm.image/variant".to_owned(), "compat-smart".to_owned());
        marked.annotations.extend([variant]);
        let own = if cfg!(target_arch = "x86_64") { "amd64" } else { std::env::consts::ARCH };
        let own = own.replace("aarch64", "arm64");
        let entries = [entry("windows/amd64"), entry(&format!("linux/{own}")), marked];
        assert_eq!(choose(&entries).unwrap().digest, "linux/s390x");
        assert_eq!(native(&entries).unwrap().digest, format!("linux/{own}"));
        assert_eq!(choose(&entries[..2]).map(|entry| &entry.digest), None);
        let silent: Vec<_> = silent(&vec![Descriptor::default(); 20]).cloned().collect();
        assert_eq!(silent.len(), LOOKED_INTO);
    }
}
