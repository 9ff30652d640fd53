//! A Wasm binary as an artifact (CNCF, "Wasm OCI Artifact layout").

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::interface::Interface;
use crate::wasm::Kind;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is pushed of a binary beside itself. The same binary always makes the same artifact.
pub(crate) struct Artifact {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Artifact {
    /// Of a binary that is Wasm of this kind; `title` is its file's name.
    pub(crate) fn of(wasm: &[u8], kind: Kind, title: &str) -> Self {
        let digest = Digest::of(wasm).to_string();
        let config = config(wasm, kind, &digest).to_string().into_bytes();
        let layer = json!({
            "mediaType": "application/wasm", "digest": digest, "size": wasm.len(),
            "annotations": { "org.opencontainers.image.title": title },
        });
        let own = Digest::of(&config).to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.wasm.config.v0+json", "digest": own, "size": config.len(),
            },
            "layers": [layer],
        });
        Self { config, manifest: manifest.to_string().into_bytes() }
    }
}

fn config(wasm: &[u8], kind: Kind, digest: &str) -> Value {
    let (architecture, layers) = ("wasm", [digest]);
    if kind == Kind::Module {
        return json!({ "architecture": architecture, "os": "wasip1", "layerDigests": layers });
    }
    let Interface { imports, exports, .. } = Interface::of(wasm).unwrap_or_default();
    json!({
        "architecture": architecture, "os": "wasip2", "layerDigests": layers,
        "component": { "imports": imports, "exports": exports },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_says_what_is_in_it() {
        let wasm = b"\0asm\x0d\0\x01\0";
        let artifact = Artifact::of(wasm, Kind::Component, "a.wasm");
        let config: Value = serde_json::from_slice(&artifact.config).unwrap();
        assert_eq!(config["os"], "wasip2");
        assert_eq!(config["layerDigests"][0], Digest::of(wasm).to_string());
        let manifest: Value = serde_json::from_slice(&artifact.manifest).unwrap();
        assert_eq!(manifest["layers"][0]["size"], 8);
        assert_eq!(
            manifest["layers"][0]["annotations"]["org.opencontainers.image.title"],
            "a.wasm"
        );
        let module = Artifact::of(b"\0asm\x01\0\0\0", Kind::Module, "a.wasm");
        let config: Value = serde_json::from_slice(&module.config).unwrap();
        assert_eq!((&config["os"], &config["component"]), (&json!("wasip1"), &Value::Null));
    }
}
