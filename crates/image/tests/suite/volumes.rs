//! Images as volumes: what becomes the files of one, what never does, and that running and mounting do not disturb each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nodule_image::{Collect, Image, Keyring, Packaging, PullError, Purpose, Reference};
use serde_json::{Value, json};

use crate::layers::{Layer, TAR, config};
use crate::node::{Node, command, module};
use crate::registry::{INDEX, MANIFEST, Registry, descriptor};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Pushes an artifact of nothing known, of these layers with their titles.
fn artifact(registry: &Registry, repository: &str, layers: &[(Option<&str>, &[u8])]) -> String {
    registry.blob(repository, b"{}");
    let layers: Vec<Value> = layers
        .iter()
        .map(|(title, content)| {
            registry.blob(repository, content);
            let mut layer = descriptor("application/vnd.example.model", content);
            if let Some(title) = title {
                layer["annotations"] = json!({ "org.opencontainers.image.title": title });
            }
            layer
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.model",
        "config": descriptor(EMPTY, b"{}"), "layers": layers,
    });
    registry.manifest(repository, "1", MANIFEST, &manifest)
}

async fn mount(node: &Node, registry: &Registry, name: &str) -> Result<Image, PullError> {
    let name = Reference::parse(&format!("{}/{name}:1", registry.host)).unwrap();
    node.images.pull_for(&name, &Keyring::default(), Purpose::Mount).await
}

async fn present(node: &Node, registry: &Registry, name: &str, purpose: Purpose) -> Option<Image> {
    let name = Reference::parse(&format!("{}/{name}:1", registry.host)).unwrap();
    node.images.present(&name, purpose).await
}

/// All files below a folder, with what is in them.
fn files(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

fn owned(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

#[tokio::test]
async fn an_artifacts_layers_are_files_that_everybody_may_read() {
    let registry = Registry::start().await;
    let nameless = b"nameless";
    let layers: &[(_, &[u8])] =
        &[(Some("model.bin"), b"weights"), (Some("conf/a.json"), b"{}"), (None, nameless)];
    let digest = artifact(&registry, "model", layers);
    let node = Node::new(&registry).await;

    let image = mount(&node, &registry, "model").await.unwrap();

    assert_eq!((&image.digest, image.packaging), (&digest, Packaging::Files));
    let root = image.root.clone().unwrap();
    let name = crate::registry::sha(nameless).replace(':', "-");
    let expected = [("model.bin", "weights"), ("conf/a.json", "{}"), (&*name, "nameless")];
    assert_eq!(files(&root), owned(&expected));
    let file = fs::metadata(root.join("model.bin")).unwrap();
    assert_eq!((file.mode() & 0o777, file.nlink()), (0o444, 2), "the blob itself, for everybody");
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn an_image_of_another_platform_is_mounted_with_its_layers_applied() {
    let registry = Registry::start().await;
    let below = Layer::default().file("a", b"old").file("gone", b"").tar();
    let above = Layer::default().file("a", b"new").file(".wh.gone", b"").tar();
    let tars = [below, above];
    let native = config(("linux", "s390x"), &json!({ "Cmd": ["/bin/sh"] }), &tars);
    let layers = tars.map(|tar| (TAR, tar));
    let manifest = registry.image("data", &native, &layers);
    let node = Node::new(&registry).await;

    let image = mount(&node, &registry, "data").await.unwrap();
    assert_eq!(files(image.root.as_ref().unwrap()), owned(&[("a", "new")]));
    assert!(node.pull(&format!("{}/data:1", registry.host)).await.is_err(), "none to run");

    // In an index it is the only one there is.
    let size = 2000;
    let entry = json!({ "mediaType": MANIFEST, "digest": manifest, "size": size,
                        "platform": { "os": "linux", "architecture": "s390x" } });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    registry.manifest("data", "1", INDEX, &index);
    let again = mount(&node, &registry, "data").await.unwrap();
    assert!(again.digest != image.digest && again.root == image.root);
}

#[tokio::test]
async fn titles_that_lead_elsewhere_or_clash_are_refused_before_anything_is_fetched() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let long = "x".repeat(256);
    for (number, bad) in
        ["../x", "/abs", "a/../../x", "", ".", "a\0b", "good", "good/in", &long].iter().enumerate()
    {
        let name = format!("bad{number}");
        artifact(&registry, &name, &[(Some("good"), b"1"), (Some(bad), b"2")]);

        let text = mount(&node, &registry, &name).await.unwrap_err().to_string();

        assert!(text.contains("layer 2 of the artifact: "), "{text}");
        assert!(text.contains("org.opencontainers.image.title"), "{text}");
        assert!(registry.seen("blobs/").is_empty(), "{bad:?}");
    }
    assert!(node.files("trees").is_empty() && node.files("partial").is_empty());
}

#[tokio::test]
async fn what_was_pulled_to_run_is_mounted_without_the_registry_and_the_other_way_round() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command("a"));
    registry.rooted("rooted", &[Layer::default().file("app.wasm", &command("r"))]);
    let node = Node::new(&registry).await;
    for name in ["app", "rooted"] {
        node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap();
    }
    let asked = registry.seen("").len();

    let mounted = present(&node, &registry, "app", Purpose::Mount).await.unwrap();
    assert!(mounted.program.is_none());
    assert_eq!(fs::read_dir(mounted.root.unwrap()).unwrap().count(), 1);
    let rooted = present(&node, &registry, "rooted", Purpose::Mount).await.unwrap();
    assert!(rooted.root.unwrap().join("app.wasm").is_file());
    assert!(present(&node, &registry, "app", Purpose::Run).await.unwrap().program.is_some());

    let other = Node::new(&registry).await;
    mount(&other, &registry, "rooted").await.unwrap();
    let name = format!("{}/rooted:1", registry.host);
    assert!(other.find(&name).is_none(), "nobody wanted to run it");
    let asked_by_the_other = registry.seen("").len();
    let run = present(&other, &registry, "rooted", Purpose::Run).await.unwrap();
    assert_eq!(run.argv(&[], &[]), ["/app.wasm"]);
    assert!(other.find(&name).is_some());
    assert_eq!(registry.seen("").len(), asked_by_the_other);
    assert!(asked_by_the_other > asked);
}

#[tokio::test]
async fn what_cannot_be_run_is_present_for_volumes_alone() {
    let registry = Registry::start().await;
    artifact(&registry, "model", &[(Some("m"), b"weights")]);
    let node = Node::new(&registry).await;
    mount(&node, &registry, "model").await.unwrap();

    assert!(present(&node, &registry, "model", Purpose::Run).await.is_none());

    let error = node.pull(&format!("{}/model:1", registry.host)).await.unwrap_err().to_string();
    assert!(error.contains("an artifact of a kind that is not known here"), "{error}");
    let image = present(&node, &registry, "model", Purpose::Mount).await.unwrap();
    assert_eq!(files(&image.root.unwrap()), owned(&[("m", "weights")]));
}

#[tokio::test]
async fn who_calls_a_file_wasm_takes_it_from_no_other_image() {
    let registry = Registry::start().await;
    artifact(&registry, "model", &[(Some("m"), b"weights")]);
    registry.artifact("liar", "1", b"weights");
    let node = Node::new(&registry).await;
    mount(&node, &registry, "model").await.unwrap();

    assert!(node.pull(&format!("{}/liar:1", registry.host)).await.is_err());

    let image = present(&node, &registry, "model", Purpose::Mount).await.unwrap();
    assert_eq!(files(&image.root.unwrap()), owned(&[("m", "weights")]));
}

#[tokio::test]
async fn a_volumes_files_stay_while_it_is_used_and_go_with_the_image() {
    let registry = Registry::start().await;
    artifact(&registry, "model", &[(Some("m"), b"weights")]);
    registry.artifact("app", "1", &module(""));
    let node = Node::new(&registry).await;
    let full = || Collect { high: 0, low: 0, youngest: Duration::ZERO, oldest: None };
    let image = mount(&node, &registry, "model").await.unwrap();
    node.images.collect(full(), BTreeSet::new()).await.unwrap();
    assert_eq!(node.files("trees").len(), 1, "it is in hand");
    let used = BTreeSet::from([image.id()]);
    drop(image);

    node.images.collect(full(), used).await.unwrap();
    let image = present(&node, &registry, "model", Purpose::Mount).await.unwrap();
    assert_eq!(files(image.root.as_ref().unwrap()), owned(&[("m", "weights")]));
    drop(image);

    node.images.collect(full(), BTreeSet::new()).await.unwrap();
    for folder in ["trees", "images", "blobs/sha256", "partial"] {
        assert!(node.files(folder).is_empty(), "{folder}");
    }
}
