//! Which entry of an index is the one for Wasm.

use crate::error::Problem;
use crate::manifest::Descriptor;

/// Chooses the Wasm entry: the newest WASI that runs here first, then the index's own order.
///
/// An entry without a platform is an artifact; it counts if its type speaks of Wasm.
pub(crate) fn choose(entries: &[Descriptor]) -> Result<&Descriptor, Problem> {
    let candidates = entries.iter().filter(|entry| !is_attestation(entry));
    let ranked = candidates.filter_map(|entry| Some((rank(entry)?, entry)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
    best.ok_or_else(|| Problem::NoPlatform { platforms: entries.iter().map(shown).collect() })
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
        _ => return None,
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
    use crate::manifest::Platform;

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
        choose(&entries).map(|entry| entry.digest.clone()).map_err(|problem| problem.to_string())
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
}
