//! Layers of files, as a test writes them.

use std::io::{Seek, Write};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::registry::{MANIFEST, Registry, descriptor, sha};

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const IMAGE: &str = "application/vnd.oci.image.config.v1+json";

/// A tar archive.
#[derive(Default)]
pub(crate) struct Layer(Vec<u8>);

impl Layer {
    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, "", content.len() as u64).padded(content)
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, "", 0)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, 0)
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, target, 0)
    }

    pub(crate) fn device(self, name: &str) -> Self {
        self.entry(name, EntryType::Char, "", 0).entry(&format!("{name}p"), EntryType::Fifo, "", 0)
    }

    /// A header alone. No name is too evil for it.
    pub(crate) fn entry(mut self, name: &str, kind: EntryType, target: &str, size: u64) -> Self {
        let mut header = Header::new_ustar();
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4751);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    pub(crate) fn padded(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end.
    pub(crate) fn tar(&self) -> Vec<u8> {
        [&*self.0, &[0; 1024]].concat()
    }
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What the program zstd makes of it, with these arguments.
pub(crate) fn zstd(content: &[u8], arguments: &[&str]) -> Vec<u8> {
    // From standard input, of which zstd does not know the length: the window is as large as it may be.
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(content).unwrap();
    input.rewind().unwrap();
    let zstd = Command::new("zstd").args(arguments).args(["-q", "-c"]).stdin(input).output();
    let zstd = zstd.unwrap_or_else(|error| panic!("zstd (Debian: zstd): {error}"));
    assert!(zstd.status.success(), "{}", String::from_utf8_lossy(&zstd.stderr));
    zstd.stdout
}

/// An image's configuration for these layers, as they are before they are compressed.
pub(crate) fn config(platform: (&str, &str), execution: &Value, tars: &[Vec<u8>]) -> Vec<u8> {
    let diffs: Vec<_> = tars.iter().map(|tar| sha(tar)).collect();
    let (os, architecture) = platform;
    let config = json!({ "os": os, "architecture": architecture, "config": execution,
                         "rootfs": { "type": "layers", "diff_ids": diffs } });
    config.to_string().into_bytes()
}

impl Registry {
    /// Pushes an image of blobs with their media types.
    pub(crate) fn image(
        &self,
        repository: &str,
        config: &[u8],
        layers: &[(&str, Vec<u8>)],
    ) -> String {
        self.blob(repository, config);
        for (_, layer) in layers {
            self.blob(repository, layer);
        }
        let layers: Vec<_> = layers.iter().map(|(kind, layer)| descriptor(kind, layer)).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
                               "config": descriptor(IMAGE, config), "layers": layers });
        self.manifest(repository, "1", MANIFEST, &manifest)
    }

    /// Pushes an image for wasi/wasm of these layers, which says to run `/app.wasm`.
    pub(crate) fn rooted(&self, repository: &str, layers: &[Layer]) -> String {
        let tars: Vec<_> = layers.iter().map(Layer::tar).collect();
        let config = config(("wasi", "wasm"), &json!({ "Entrypoint": ["/app.wasm"] }), &tars);
        let gzip = tars.iter().map(|tar| (TAR, gzip(tar))).collect::<Vec<_>>();
        self.image(repository, &config, &gzip)
    }
}
