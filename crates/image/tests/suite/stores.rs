//! What is on disk, after an agent that was interrupted too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use nodule_image::Reference;

use crate::node::{Node, config, module, open, program};
use crate::registry::{Fault, Registry, sha};

fn hex(content: &[u8]) -> String {
    sha(content).replace("sha256:", "")
}

#[tokio::test]
async fn images_are_found_by_the_next_agent() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    let node = Node::new(&registry).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    let next = open(config(node.root())).await;

    assert_eq!(next.find(&image.reference).unwrap().program, image.program);
    assert_eq!(next.list(), node.images.list());
}

#[tokio::test]
async fn a_download_that_an_agent_left_is_taken_up_by_the_next() {
    let registry = Registry::start().await;
    let wasm = module(&"0123456789".repeat(100));
    registry.artifact("app", "1", &wasm);
    let node = Node::new(&registry).await;
    let partial = node.root().join("partial").join(hex(&wasm));
    fs::write(&partial, &wasm[..500]).unwrap();

    let next = Node::with(&registry, |config| config.root = node.root().to_owned()).await;
    let image = next.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    assert_eq!(fs::read(program(&image).wasm).unwrap(), wasm);
    assert_eq!(registry.seen(&sha(&wasm))[0].headers["range"], "bytes=500-");
    assert!(!partial.exists());
}

#[tokio::test]
async fn what_was_left_of_other_content_does_not_spoil_a_download() {
    let registry = Registry::start().await;
    let wasm = module(&"0123456789".repeat(100));
    registry.artifact("app", "1", &wasm);
    let node = Node::new(&registry).await;
    let name = format!("{}/app:1", registry.host);
    for left in [&b"other content"[..], &[b'x'; 5000], &vec![b'y'; wasm.len()]] {
        fs::write(node.root().join("partial").join(hex(&wasm)), left).unwrap();
        let image = node.pull(&name).await.unwrap();
        assert_eq!(fs::read(program(&image).wasm).unwrap(), wasm);
        fs::remove_file(program(&image).wasm).unwrap();
        assert!(node.find(&name).is_none(), "an image without its program is not here");
    }
}

#[tokio::test]
async fn half_written_files_are_removed_at_the_start() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    fs::write(node.root().join("partial/new-0123"), "half").unwrap();
    let _next = open(config(node.root())).await;
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn a_download_left_long_ago_is_removed_at_the_start() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let [old, young] = [hex(b"old"), hex(b"young")];
    for name in [&old, &young] {
        fs::write(node.root().join("partial").join(name), "part").unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_hours(25);
    let file =
        fs::File::options().append(true).open(node.root().join("partial").join(old)).unwrap();
    file.set_modified(long_ago).unwrap();
    let _next = open(config(node.root())).await;
    assert_eq!(node.files("partial"), [young]);
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_what_the_next_goes_on_with() {
    let registry = Registry::start().await;
    let wasm = module(&"0123456789".repeat(100_000));
    registry.artifact("app", "1", &wasm);
    let blob = format!("app/blobs/{}", sha(&wasm));
    registry.fail(&blob, [Fault::Silence(900_000)]);
    let node = Node::new(&registry).await;
    let name = format!("{}/app:1", registry.host);
    let partial = node.root().join("partial").join(hex(&wasm));
    let something_came = async {
        while fs::metadata(&partial).map_or(0, |file| file.len()) == 0 {
            tokio::task::yield_now().await;
        }
    };

    tokio::select! {
        _ = node.pull(&name) => unreachable!("the registry is silent"),
        () = something_came => {}
    }

    let image = node.pull(&name).await.unwrap();
    assert_eq!(fs::read(program(&image).wasm).unwrap(), wasm);
    assert!(registry.seen(&blob)[1].headers.contains_key("range"));
}

#[tokio::test]
async fn a_spoilt_note_is_as_if_absent_and_a_pull_repairs_it() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    let node = Node::new(&registry).await;
    let name = format!("{}/app:1", registry.host);
    let image = node.pull(&name).await.unwrap();
    let note = node.root().join(image.digest.replace("sha256:", "images/") + ".json");
    fs::set_permissions(&note, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&note, "{").unwrap();

    assert!(node.find(&name).is_none() && node.images.list().is_empty());
    node.pull(&name).await.unwrap();
    assert!(node.images.find(&Reference::parse(&name).unwrap()).is_some());
}

#[tokio::test]
async fn only_the_agent_reads_the_store() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    let node = Node::new(&registry).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&program(&image).wasm), 0o400);
    for folder in ["blobs/sha256", "images", "refs", "aot", "partial"] {
        assert_eq!(mode(&node.root().join(folder)), 0o700, "{folder}");
    }
}
