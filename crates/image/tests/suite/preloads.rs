//! Images that are taken up under names, looked at and removed, as on a node without a registry.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodule_image::{Kind, Prune, Reference, RemoveError, Removed};
use serde_json::json;

use crate::imports::layout;
use crate::layers::{Layer, gzip};
use crate::node::{Node, command, compile};
use crate::registry::{Registry, sha};

async fn node() -> (Node, tempfile::TempDir) {
    let registry = Registry::start().await;
    (Node::new(&registry).await, tempfile::tempdir().unwrap())
}

async fn load(node: &Node, path: &Path, name: Option<&str>) -> Result<Vec<String>, String> {
    let name = name.map(|name| Reference::parse(name).unwrap());
    let loaded = node.images.load(path, name.as_ref()).await;
    let names = loaded.map(|all| all.iter().map(|image| image.reference.to_string()).collect());
    names.map_err(|error| {
        let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    })
}

/// The archive of a folder in the form of the OCI image layout, with a pax header and a `./` as tar writes them.
fn archived(folder: &Path) -> Vec<u8> {
    let mut archive = Layer::default().folder("./blobs").folder("./blobs/sha256");
    let blobs = fs::read_dir(folder.join("blobs/sha256")).unwrap();
    for blob in blobs.map(|entry| entry.unwrap()) {
        let name = format!("./blobs/sha256/{}", blob.file_name().to_str().unwrap());
        archive = archive.file(&name, &fs::read(blob.path()).unwrap());
    }
    let index = fs::read(folder.join("index.json")).unwrap();
    archive.file("./index.json", &index).tar()
}

/// What `docker save` wrote before 2024, with a layer that is a link to another image's.
fn saved() -> Layer {
    let layer = Layer::default().file("app.wasm", &command("saved")).tar();
    let config =
        json!({"os": "wasi", "architecture": "wasm", "config": {"Entrypoint": ["/app.wasm"]},
        "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]}})
        .to_string();
    let manifest = json!([
        {"Config": "c.json", "RepoTags": ["app:1", "example.com/app:2"], "Layers": ["a/layer.tar"]},
        {"Config": "c.json", "RepoTags": ["linked:1"], "Layers": ["b/layer.tar"]}]);
    Layer::default()
        .file("c.json", config.as_bytes())
        .folder("a/")
        .file("a/layer.tar", &layer)
        .symlink("b/layer.tar", "../a/layer.tar")
        .file("manifest.json", manifest.to_string().as_bytes())
}

#[tokio::test]
async fn a_wasm_file_has_the_name_that_it_is_given_or_its_own() {
    let (node, folder) = node().await;
    let path = folder.path().join("app.wasm");
    fs::write(&path, command("")).unwrap();
    assert_eq!(load(&node, &path, None).await.unwrap(), ["localhost/app:latest"]);
    assert_eq!(load(&node, &path, Some("ex.io/a:1")).await.unwrap(), ["ex.io/a:1"]);
    for name in ["localhost/app", "ex.io/a:1"] {
        compile(&node.images, &node.find(name).unwrap()).await.unwrap();
    }
    let inspected = node.images.inspect("ex.io/a:1").await.unwrap();
    assert!(inspected.runs.here, "{:?}", inspected.runs);
    assert_eq!(inspected.stocked.tags, ["ex.io/a:1", "localhost/app:latest"]);
    let program = inspected.program.unwrap();
    assert_eq!(
        (program.kind, &*program.interface.exports),
        (Kind::Module, &["_start".to_owned()][..])
    );
    let digest = &inspected.stocked.digest[..20];
    assert_eq!(node.images.inspect(digest).await.unwrap().stocked, inspected.stocked);
}

#[tokio::test]
async fn images_of_a_folder_and_of_its_archive_are_the_same() {
    let (node, folder) = node().await;
    let path = folder.path().join("tools");
    layout(&path, &[("v1", command("one")), ("ex.io/b:2", command("two"))]);
    let mut names = load(&node, &path, None).await.unwrap();
    assert_eq!(names, ["localhost/tools:v1", "ex.io/b:2"]);
    let digest = node.find("ex.io/b:2").unwrap().digest;
    for (file, content) in
        [("tools.tar", archived(&path)), ("tools.tar.gz", gzip(&archived(&path)))]
    {
        let (other, _) = self::node().await;
        let archive = folder.path().join(file);
        fs::write(&archive, content).unwrap();
        // The stem of the second has a dot in it.
        names[0] =
            if file.ends_with("gz") { "localhost/tools-tar:v1" } else { &names[0] }.to_owned();
        assert_eq!(load(&other, &archive, None).await.unwrap(), names);
        let image = other.find("ex.io/b:2").unwrap();
        assert_eq!(image.digest, digest);
        compile(&other.images, &image).await.unwrap();
        assert_eq!(other.files("partial"), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_docker_saved_is_taken_up_with_all_its_names() {
    let (node, folder) = node().await;
    let path = folder.path().join("saved.tar");
    fs::write(&path, saved().tar()).unwrap();
    let names = load(&node, &path, None).await.unwrap();
    assert_eq!(
        names,
        ["docker.io/library/app:1", "example.com/app:2", "docker.io/library/linked:1"]
    );
    let image = node.find("linked:1").unwrap();
    assert_eq!(image.digest, node.find("app:1").unwrap().digest);
    let program = node.images.program(&image, "/app.wasm", "/").await.unwrap();
    node.images.compile(&image, &program).await.unwrap();
}

#[tokio::test]
async fn what_is_no_archive_of_images_is_refused_with_its_path() {
    let (node, folder) = node().await;
    let bad = json!([{"Config": "gone.json", "Layers": []}]).to_string();
    let missing = json!({"manifests": [{"digest": sha(b"gone"), "size": 1}]}).to_string();
    for (content, part) in [
        (Layer::default().file("a", b"b").tar(), "not of images"),
        (b"\x7fELF and more of it".to_vec(), "no archive"),
        (Layer::default().file("manifest.json", bad.as_bytes()).tar(), "\"gone.json\""),
        (Layer::default().file("index.json", b"{").tar(), "cannot be understood"),
        (Layer::default().file("index.json", missing.as_bytes()).tar(), "sha256"),
        (archive_cut(), "cut off"),
    ] {
        let path: PathBuf = folder.path().join("bad.tar");
        fs::write(&path, content).unwrap();
        let error = load(&node, &path, None).await.unwrap_err();
        assert!(error.contains(part) && error.contains("bad.tar"), "{part}: {error}");
        assert_eq!(node.files("images"), Vec::<String>::new());
        assert_eq!(node.files("partial"), Vec::<String>::new());
    }
    let error = load(&node, &folder.path().join("none"), None).await.unwrap_err();
    assert!(error.contains("none"), "{error}");
}

fn archive_cut() -> Vec<u8> {
    let mut archive = saved().tar();
    archive.truncate(513);
    archive
}

#[tokio::test]
async fn a_name_goes_before_its_image_and_an_image_in_use_stays() {
    let (node, folder) = node().await;
    let path = folder.path().join("app.wasm");
    fs::write(&path, command("")).unwrap();
    for name in ["ex.io/a:1", "ex.io/a:2"] {
        load(&node, &path, Some(name)).await.unwrap();
    }
    let image = node.find("ex.io/a:1").unwrap();
    let used = BTreeSet::from([format!("elsewhere/x@{}", image.digest)]);
    let remove =
        async |name: &str, used: &BTreeSet<String>| node.images.remove(name, used.clone()).await;
    assert_eq!(remove("ex.io/a:1", &used).await.unwrap(), Removed::Name);
    assert!(node.find("ex.io/a:1").is_none());
    let in_use = remove("ex.io/a:2", &used).await.unwrap_err();
    assert!(matches!(in_use, RemoveError::Used { .. }), "{in_use}");
    let nobody = BTreeSet::new();
    let held = remove("ex.io/a:2", &nobody).await.unwrap_err();
    assert!(matches!(held, RemoveError::Held { .. }), "{held}");
    let digest = image.digest.clone();
    drop(image);
    assert!(matches!(remove(&digest, &nobody).await.unwrap(), Removed::Image(_)));
    assert!(node.find("ex.io/a:2").is_none());
    assert_eq!(node.files("blobs/sha256"), Vec::<String>::new());
    assert!(remove("ex.io/a:2", &nobody).await.unwrap_err().to_string().contains("image ls"));
}

#[tokio::test]
async fn unused_images_without_a_tag_are_pruned_first() {
    let (node, folder) = node().await;
    let path = folder.path().join("app.wasm");
    let mut digests = Vec::new();
    for content in ["old", "new"] {
        fs::write(&path, command(content)).unwrap();
        load(&node, &path, Some("ex.io/a:1")).await.unwrap();
        digests.push(node.find("ex.io/a:1").unwrap().digest);
    }
    let prune = async |tagged, youngest, used: &str| {
        let used = BTreeSet::from([format!("x@{used}")]);
        let gone = node.images.prune(Prune { tagged, youngest }, used).await.unwrap();
        gone.into_iter().map(|image| image.digest).collect::<Vec<_>>()
    };
    let hour = Duration::from_hours(1);
    assert_eq!(prune(true, hour, "").await, Vec::<String>::new(), "all are young");
    assert_eq!(prune(true, Duration::ZERO, &digests[1]).await, &digests[..1]);
    assert_eq!(prune(false, Duration::ZERO, "").await, Vec::<String>::new(), "it has a tag");
    assert_eq!(prune(true, Duration::ZERO, "").await, &digests[1..]);
}
