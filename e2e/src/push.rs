//! Pushing programs to a registry, in the packagings that users have, and in broken ones.

use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::paths;

/// The media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How a program is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packaging {
    /// The CNCF's Wasm OCI artifact.
    Cncf,
    /// What wasm-to-oci pushed and Krustlet ran.
    Krustlet,
}

/// One blob and what a manifest says of it, which a test may falsify.
#[derive(Debug, Clone, PartialEq)]
pub struct Blob {
    /// The content.
    pub content: Vec<u8>,
    /// The descriptor in the manifest.
    pub descriptor: Value,
}

impl Blob {
    /// A blob with a true descriptor.
    pub fn new(media_type: &str, content: Vec<u8>) -> Self {
        let descriptor =
            json!({ "mediaType": media_type, "digest": sha256(&content), "size": content.len() });
        Self { content, descriptor }
    }
}

/// An image: a configuration and layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The configuration.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
}

impl Image {
    /// A program as an artifact.
    pub fn of_program(packaging: Packaging, program: Vec<u8>) -> Self {
        match packaging {
            Packaging::Cncf => {
                let config = cncf_config(&program).to_string().into_bytes();
                Self {
                    config: Blob::new("application/vnd.wasm.config.v0+json", config),
                    layers: vec![Blob::new("application/wasm", program)],
                }
            }
            Packaging::Krustlet => Self {
                config: Blob::new("application/vnd.wasm.config.v1+json", b"{}".to_vec()),
                layers: vec![Blob::new("application/vnd.wasm.content.layer.v1+wasm", program)],
            },
        }
    }

    /// An ordinary Linux image, whose only layer is no archive at all: nobody shall get as far as to unpack it.
    pub fn of_linux() -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": [sha256(b"a layer")] },
        });
        Self {
            config: Blob::new(
                "application/vnd.oci.image.config.v1+json",
                config.to_string().into_bytes(),
            ),
            layers: vec![Blob::new(
                "application/vnd.oci.image.layer.v1.tar+gzip",
                b"a layer".to_vec(),
            )],
        }
    }

    /// The manifest's bytes: what its digest is made of.
    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<_> = self.layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": self.config.descriptor, "layers": layers });
        manifest.to_string().into_bytes()
    }
}

/// The configuration of a CNCF artifact says whether it is a module or a component.
fn cncf_config(program: &[u8]) -> Value {
    // The field after the magic number and the version tells the two apart (component-model, Binary.md).
    let is_component = program.get(6) == Some(&1);
    json!({
        "architecture": "wasm",
        "os": if is_component { "wasip2" } else { "wasip1" },
        "layerDigests": [sha256(program)],
    })
}

/// `sha256:` and 64 hex digits.
pub fn sha256(content: &[u8]) -> String {
    let hex: String =
        digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A registry over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Its host and port.
    pub host: String,
    /// User and password, where it asks for them.
    pub login: Option<(String, String)>,
    /// The folder in which it keeps everything, where that is on this machine.
    pub storage: Option<PathBuf>,
}

impl Registry {
    /// Pushes blobs and manifest under `NAME:TAG`, and gives back the reference that a pod uses.
    pub async fn push(&self, name: &str, image: &Image) -> Result<String> {
        let text = format!("{}/{name}", self.host);
        let reference: Reference = text.parse().with_context(|| format!("reference {text}"))?;
        let client = self.client(&reference).await?;
        for blob in image.layers.iter().chain([&image.config]) {
            let pushed =
                client.push_blob(&reference, blob.content.clone(), &sha256(&blob.content)).await;
            pushed.with_context(|| format!("push a blob to {text}"))?;
        }
        let pushed =
            client.push_manifest_raw(&reference, image.manifest(), MANIFEST.parse()?).await;
        pushed.with_context(|| format!("push the manifest of {text}"))?;
        Ok(text)
    }

    /// Pushes a manifest or an index of what is there already under `NAME:TAG`, and gives back the reference that a pod uses.
    pub async fn push_manifest(&self, name: &str, kind: &str, content: Vec<u8>) -> Result<String> {
        let text = format!("{}/{name}", self.host);
        let reference: Reference = text.parse().with_context(|| format!("reference {text}"))?;
        let client = self.client(&reference).await?;
        let pushed = client.push_manifest_raw(&reference, content, kind.parse()?).await;
        pushed.with_context(|| format!("push {text}"))?;
        Ok(text)
    }

    /// Pushes the test guest as `examples/probe:p1` (a module), `:p2` and `:p3` (components) and `:krustlet`.
    pub async fn push_probe(&self) -> Result<()> {
        let images = [
            ("p1", "probe.p1.wasm", Packaging::Cncf),
            ("p2", "probe.p2.wasm", Packaging::Cncf),
            ("p3", "probe.p3.wasm", Packaging::Cncf),
            ("krustlet", "probe.p1.wasm", Packaging::Krustlet),
        ];
        for (tag, guest, packaging) in images {
            let path = paths::guest(guest)?;
            let program =
                std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            self.push(&format!("examples/probe:{tag}"), &Image::of_program(packaging, program))
                .await?;
        }
        Ok(())
    }

    /// Changes a blob where the registry keeps it: what it serves afterwards is not what its digest says.
    pub fn tamper(&self, digest: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let storage = self.storage.as_ref().context("this registry's storage is elsewhere")?;
        let hex = digest.strip_prefix("sha256:").context("a sha256 digest")?;
        let first = hex.get(..2).context("a whole digest")?;
        let path =
            storage.join("docker/registry/v2/blobs/sha256").join(first).join(hex).join("data");
        let mut content =
            std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        change(&mut content);
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    async fn client(&self, reference: &Reference) -> Result<Client> {
        // This client takes what is installed, and somebody may have been first.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let client =
            Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        let login = match &self.login {
            Some((user, password)) => RegistryAuth::Basic(user.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let access = client.auth(reference, &login, RegistryOperation::Push).await;
        access.with_context(|| format!("access to {}", self.host))?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cncf_artifact_says_module_or_component() {
        let os = |header: &[u8]| cncf_config(header)["os"].clone();
        assert_eq!(os(b"\0asm\x01\0\0\0"), "wasip1");
        assert_eq!(os(b"\0asm\x0d\0\x01\0"), "wasip2");
    }

    #[test]
    fn a_manifest_names_its_blobs_by_digest_and_size() {
        let image = Image::of_program(Packaging::Krustlet, b"\0asm".to_vec());
        let manifest: Value = serde_json::from_slice(&image.manifest()).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], sha256(b"\0asm"));
        assert_eq!(manifest["layers"][0]["size"], 4);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v1+json");
    }
}
