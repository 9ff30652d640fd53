//! What was compiled by one agent and is used by the next: only if nothing has happened to it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nodule_image::{Compiled, Image, Kind};

use crate::compilations::pulled;
use crate::node::{Node, command, compile, config, open, try_open};
use crate::registry::Registry;

/// An image that the agent before has compiled.
struct Left {
    node: Node,
    image: Image,
    code: PathBuf,
}

impl Left {
    async fn new() -> Self {
        let (node, image) = pulled(&command(""), |_| ()).await;
        let code = compile(&node.images, &image).await.unwrap().code;
        Self { node, image, code }
    }

    /// What the next agent makes of it.
    async fn next(&self) -> Compiled {
        let next = open(config(self.node.root())).await;
        compile(&next, &self.image).await.unwrap()
    }

    /// It was thrown away and compiled again, and is whole.
    async fn assert_made_again(&self, good: &[u8]) {
        assert!(self.next().await.took.is_some());
        assert_eq!(fs::read(&self.code).unwrap(), good);
        assert!(self.next().await.took.is_none());
    }
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    fs::write(path, content).unwrap();
}

#[tokio::test]
async fn the_next_agent_uses_what_is_whole() {
    let left = Left::new().await;
    let key = fs::read(left.node.root().join("aot.key")).unwrap();
    let next = left.next().await;
    assert_eq!((next.took, next.kind, next.code), (None, Kind::Module, left.code.clone()));
    assert_eq!(fs::read(left.node.root().join("aot.key")).unwrap(), key);
}

#[tokio::test]
async fn what_was_changed_or_cut_is_compiled_again() {
    let left = Left::new().await;
    let good = fs::read(&left.code).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for spoilt in [&flipped[..], &good[..good.len() - 1], b"", &[&good[..], b"more"].concat()] {
        overwrite(&left.code, spoilt);
        left.assert_made_again(&good).await;
    }
}

#[tokio::test]
async fn code_without_a_label_or_with_another_is_compiled_again() {
    let left = Left::new().await;
    let good = fs::read(&left.code).unwrap();
    let label = left.code.with_extension("json");
    let text = fs::read_to_string(&label).unwrap();
    fs::remove_file(&label).unwrap();
    left.assert_made_again(&good).await;
    for spoilt in [&text.replace("module", "proxy"), &text.replace("seal", "sea"), "{", ""] {
        overwrite(&label, spoilt.as_bytes());
        left.assert_made_again(&good).await;
    }
}

#[tokio::test]
async fn code_of_another_program_or_another_node_is_compiled_again() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command("one"));
    registry.artifact("app", "2", &command("another"));
    let node = Node::new(&registry).await;
    let mut images = Vec::new();
    for tag in ["1", "2"] {
        let image = node.pull(&format!("{}/app:{tag}", registry.host)).await.unwrap();
        let code = compile(&node.images, &image).await.unwrap().code;
        images.push((image, code));
    }
    let [(one, code), (_, other)] = &images[..] else { unreachable!() };
    for extension in ["cwasm", "json"] {
        overwrite(
            &code.with_extension(extension),
            &fs::read(other.with_extension(extension)).unwrap(),
        );
    }
    let next = open(config(node.root())).await;
    assert!(compile(&next, one).await.unwrap().took.is_some());

    // Another node: one of another key.
    fs::remove_file(node.root().join("aot.key")).unwrap();
    let next = open(config(node.root())).await;
    assert!(compile(&next, one).await.unwrap().took.is_some());
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_stays() {
    let left = Left::new().await;
    let label = left.code.with_extension("json");
    for file in [&left.code, &label] {
        let aside = left.node.root().join("aside");
        fs::rename(file, &aside).unwrap();
        // Reading it fails, as it does where the disk does.
        fs::create_dir(file).unwrap();
        let next = open(config(left.node.root())).await;
        let error = compile(&next, &left.image).await.unwrap_err().to_string();
        assert!(error.contains("/app:1") && error.contains("Is a directory"), "{error}");
        assert!(left.code.exists() && label.exists());
        fs::remove_dir(file).unwrap();
        fs::rename(&aside, file).unwrap();
    }
    assert!(left.next().await.took.is_none());
}

#[tokio::test]
async fn a_key_that_cannot_be_read_or_is_damaged_is_never_replaced() {
    let left = Left::new().await;
    let key = left.node.root().join("aot.key");
    let good = fs::read(&key).unwrap();
    let error = async || try_open(config(left.node.root())).await.err().unwrap().to_string();

    fs::write(&key, "short").unwrap();
    let text = error().await;
    assert!(
        text.contains("aot.key") && text.contains("5 bytes") && text.contains("remove it"),
        "{text}"
    );
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(error().await.contains("Is a directory"));

    fs::remove_dir(&key).unwrap();
    fs::write(&key, good).unwrap();
    assert!(left.next().await.took.is_none());
}

#[tokio::test]
async fn code_of_other_engines_is_dropped_at_the_start() {
    let left = Left::new().await;
    let other = left.node.root().join("aot/0123456789abcdef");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("x.cwasm"), "old").unwrap();
    let next = left.next().await;
    assert!(!other.exists() && next.took.is_none());
}
