//! What an image may have by default, reached by an archive that is compressed while it is made.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use serde_json::json;
use tar::EntryType;

use crate::layers::{Layer, TAR};
use crate::node::{Node, command, told};
use crate::registry::Registry;

/// Files, folders, links and what is left out of an image: the default of `files`.
const ENTRIES: u32 = 1_000_000;

/// The beginning of an archive: compressed, and hashed as it was before that.
#[derive(Clone)]
struct Archive {
    packed: Vec<u8>,
    digest: Context,
}

impl Archive {
    /// A program, and pipes, which leave nothing on the disk: so many entries in all.
    fn of(entries: u32) -> Self {
        let mut archive = Self { packed: Vec::new(), digest: Context::new(&SHA256) };
        let program = Layer::default().file("app.wasm", &command("")).tar();
        archive.add([&program[..program.len() - 1024]]);
        archive.add((1..entries).map(pipe));
        archive
    }

    /// Goes on: what is compressed may come in parts.
    fn add(&mut self, parts: impl IntoIterator<Item: AsRef<[u8]>>) {
        let mut packed = GzEncoder::new(&mut self.packed, Compression::fast());
        for part in parts {
            self.digest.update(part.as_ref());
            packed.write_all(part.as_ref()).unwrap();
        }
        packed.finish().unwrap();
    }

    /// Ends it, and pushes it as an image.
    fn push(mut self, registry: &Registry, name: &str) {
        self.add([[0; 1024]]);
        let digest = self.digest.finish();
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let config = json!({ "os": "wasi", "architecture": "wasm", "config": { "Entrypoint": ["/app.wasm"] },
                             "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hex}")] } });
        registry.image(name, &config.to_string().into_bytes(), &[(TAR, self.packed)]);
    }
}

/// Unlike any other one, or many of them would be a bomb.
fn pipe(number: u32) -> Vec<u8> {
    let pipe = Layer::default().entry(&format!("pipes/{number}"), EntryType::Fifo, "", 0).tar();
    pipe[..512].to_vec()
}

#[tokio::test]
async fn an_image_has_a_million_entries_and_no_more() {
    let registry = Registry::start().await;
    let most = Archive::of(ENTRIES);
    let mut more = most.clone();
    more.add([pipe(ENTRIES)]);
    most.push(&registry, "most");
    more.push(&registry, "more");
    let node = Node::new(&registry).await;

    let most = node.pull(&format!("{}/most:1", registry.host)).await.unwrap();
    let more = node.pull(&format!("{}/more:1", registry.host)).await;

    assert!(most.root.unwrap().join("app.wasm").is_file());
    let (text, reason) = told(&registry, more);
    assert_eq!(reason, "ErrImagePull");
    assert!(text.contains("more than 1000000 files"), "{text}");
    assert_eq!(node.files("trees").len(), 1, "nothing is left of what is refused");
    assert!(node.files("partial").is_empty());
}
