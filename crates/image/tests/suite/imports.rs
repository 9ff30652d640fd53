//! Images of this machine: a Wasm file, and folders in the form of the OCI image layout.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use nodule_image::{Image, ImportError, Local};
use serde_json::{Value, json};

use crate::node::{Node, command, compile};
use crate::registry::{Registry, sha};

async fn node() -> (Node, tempfile::TempDir) {
    let registry = Registry::start().await;
    (Node::new(&registry).await, tempfile::tempdir().unwrap())
}

fn text(error: &ImportError) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

async fn file(node: &Node, path: &Path) -> Result<Image, ImportError> {
    node.images.import(&Local::File(path.to_owned())).await
}

#[tokio::test]
async fn a_wasm_file_is_an_image_and_a_changed_one_another() {
    let (node, folder) = node().await;
    let path = folder.path().join("My App.wasm");
    fs::write(&path, command("")).unwrap();
    let first = file(&node, &path).await.unwrap();
    assert!(first.id().starts_with("localhost/my-app@sha256:"), "{}", first.id());
    assert_eq!(first.argv(&[], &[]), ["My App.wasm"]);
    compile(&node.images, &first).await.unwrap();
    let same = file(&node, &path).await.unwrap();
    assert_eq!(same.digest, first.digest);
    fs::write(&path, command("other")).unwrap();
    let second = file(&node, &path).await.unwrap();
    assert_ne!(second.digest, first.digest);
    for image in [first, second] {
        assert_eq!(node.find(&image.reference.to_string()).unwrap().digest, image.digest);
    }
}

#[tokio::test]
async fn what_is_no_wasm_file_is_refused_with_its_path() {
    let (node, folder) = node().await;
    let path = folder.path().join("a.wasm");
    for (content, part) in [(&b"\x7fELF1234"[..], "no Wasm binary"), (b"", "no Wasm binary")] {
        fs::write(&path, content).unwrap();
        let error = text(&file(&node, &path).await.unwrap_err());
        assert!(error.contains(part) && error.contains("a.wasm"), "{error}");
    }
    for path in
        [folder.path().join("none.wasm"), folder.path().to_owned(), PathBuf::from("/dev/zero")]
    {
        let error = text(&file(&node, &path).await.unwrap_err());
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

/// A folder with one artifact for each program.
pub(crate) fn layout(folder: &Path, programs: &[(&str, Vec<u8>)]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |content: &[u8]| {
        let digest = sha(content);
        fs::write(blobs.join(digest.replace("sha256:", "")), content).unwrap();
        digest
    };
    let entries: Vec<Value> = programs
        .iter()
        .map(|(tag, wasm)| {
            let manifest = json!({
                "schemaVersion": 2,
                "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": put(b"{}"), "size": 2},
                "layers": [{"mediaType": "application/wasm", "digest": put(wasm), "size": wasm.len()}]})
            .to_string();
            json!({"digest": put(manifest.as_bytes()), "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": tag}})
        })
        .collect();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    fs::write(folder.join("index.json"), json!({"manifests": entries}).to_string()).unwrap();
}

#[tokio::test]
async fn an_image_of_a_folder_is_taken_up_by_its_tag_and_verified() {
    let (node, folder) = node().await;
    let path = folder.path().join("images");
    let (one, two) = (command("one"), command("two"));
    layout(&path, &[("v1", one), ("v2", two.clone())]);
    let local =
        |tag: Option<&str>| Local::Layout { folder: path.clone(), tag: tag.map(str::to_owned) };
    let image = node.images.import(&local(Some("v1"))).await.unwrap();
    assert!(image.id().starts_with("localhost/images@sha256:"), "{}", image.id());
    compile(&node.images, &image).await.unwrap();
    let error = text(&node.images.import(&local(None)).await.unwrap_err());
    assert!(error.contains("several images, v1, v2"), "{error}");
    // A blob that is not what its name says.
    let blob = path.join("blobs/sha256").join(sha(&two).replace("sha256:", ""));
    let mut wrong = two;
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(blob, wrong).unwrap();
    let error = text(&node.images.import(&local(Some("v2"))).await.unwrap_err());
    assert!(error.contains("sha256:"), "{error}");
    fs::remove_file(path.join("index.json")).unwrap();
    let error = text(&node.images.import(&local(None)).await.unwrap_err());
    assert!(error.contains("no OCI image layout"), "{error}");
}
