//! Pulls from a registry that behaves.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::poll;
use nodule_image::{Keyring, Kind, Packaging, PullRate, Reference};
use serde_json::json;
use tokio::sync::Notify;

use crate::layers::{Layer, TAR, config};
use crate::node::{Node, module, program, told};
use crate::registry::{Fault, INDEX, MANIFEST, Registry, descriptor, sha};

#[tokio::test]
async fn an_artifact_is_pulled_verified_and_found_again() {
    let registry = Registry::start().await;
    let wasm = module("");
    let digest = registry.artifact("team/app", "1", &wasm);
    let node = Node::new(&registry).await;
    let name = format!("{}/team/app:1", registry.host);
    assert!(node.find(&name).is_none());

    let image = node.pull(&name).await.unwrap();

    assert_eq!(image.id(), format!("{}/team/app@{digest}", registry.host));
    assert_eq!((program(&image).kind, image.packaging), (Kind::Module, Packaging::Artifact));
    assert_eq!(std::fs::read(program(&image).wasm).unwrap(), wasm);
    assert_eq!(program(&image).digest, sha(&wasm));
    assert_eq!(image.argv(&[], &[]), ["app"]);
    assert_eq!(node.find(&name).unwrap().digest, digest);
    assert_eq!(node.find(&image.id()).unwrap().digest, digest);
    assert!(node.find(&format!("{}/other/app@{digest}", registry.host)).is_none());
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn a_second_pull_asks_what_the_name_means_and_downloads_nothing() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    let node = Node::new(&registry).await;
    let name = format!("{}/app:1", registry.host);
    node.pull(&name).await.unwrap();
    let blobs = registry.seen("/blobs/").len();

    node.pull(&name).await.unwrap();

    assert_eq!((registry.seen("/manifests/").len(), registry.seen("/blobs/").len()), (2, blobs));
}

#[tokio::test]
async fn a_tag_that_moved_is_followed_by_a_pull() {
    let registry = Registry::start().await;
    let name = format!("{}/app:1", registry.host);
    let old = registry.artifact("app", "1", &module("old"));
    let node = Node::new(&registry).await;
    node.pull(&name).await.unwrap();
    let new = registry.artifact("app", "1", &module("new"));

    assert_eq!(node.find(&name).unwrap().digest, old);
    assert_eq!(node.pull(&name).await.unwrap().digest, new);
    assert_eq!(node.find(&name).unwrap().digest, new);
    assert_eq!(node.find(&format!("{}/app@{old}", registry.host)).unwrap().digest, old);
}

#[tokio::test]
async fn every_known_packaging_is_pulled() {
    let registry = Registry::start().await;
    let component = b"\0asm\x0d\0\x01\0";
    let legacy = "application/vnd.wasm.content.layer.v1+wasm";
    registry.push("b", "1", ("application/vnd.wasm.config.v1+json", b"{}"), (legacy, &module("")));
    let empty = ("application/vnd.oci.empty.v1+json", &b"{}"[..]);
    registry.push("i", "1", empty, ("application/wasm", component));
    let config = json!({ "architecture": "wasm", "os": "wasip1", "config": {
        "Entrypoint": ["app.wasm"], "Cmd": ["serve"], "Env": ["A=1=2", "B"], "WorkingDir": "/w",
    }});
    let config = config.to_string();
    let config = ("application/vnd.oci.image.config.v1+json", config.as_bytes());
    registry.push("c", "1", config, ("application/wasm", &module("c")));
    let node = Node::new(&registry).await;
    let pull = async |name| node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap();

    assert_eq!(pull("b").await.packaging, Packaging::Legacy);
    let plain = pull("i").await;
    assert_eq!((plain.packaging, program(&plain).kind), (Packaging::Plain, Kind::Component));
    let image = pull("c").await;
    assert_eq!(image.packaging, Packaging::Image);
    assert_eq!(image.argv(&[], &[]), ["app.wasm", "serve"]);
    let env = [("A", "1=2"), ("B", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(image.config.env, env);
    assert_eq!(image.config.working_dir.as_deref(), Some("/w"));
}

#[tokio::test]
async fn the_wasm_entry_of_an_index_is_used_and_the_index_is_reported() {
    let registry = Registry::start().await;
    let inner = registry.artifact("app", "wasm", &module(""));
    let size = registry_manifest_size(&registry, &inner).await;
    let entry = |digest: &str, os: &str, architecture: &str| {
        json!({ "mediaType": MANIFEST, "digest": digest, "size": size,
                "platform": { "os": os, "architecture": architecture } })
    };
    let other = sha(b"not there");
    let entries = json!([entry(&other, "linux", "amd64"), entry(&inner, "wasi", "wasm")]);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let top = registry.manifest("app", "1", INDEX, &index);
    let node = Node::new(&registry).await;

    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();

    assert_eq!(image.digest, top);
    assert_eq!(node.images.list()[0].names, [image.id(), format!("{}/app:1", registry.host)]);
}

async fn registry_manifest_size(registry: &Registry, digest: &str) -> u64 {
    let node = Node::new(registry).await;
    node.pull(&format!("{}/app@{digest}", registry.host)).await.unwrap();
    let path = digest.replace("sha256:", "blobs/sha256/");
    std::fs::metadata(node.root().join(path)).unwrap().len()
}

#[tokio::test]
async fn an_index_without_wasm_is_refused_with_what_it_has() {
    let registry = Registry::start().await;
    let mut entry = descriptor(MANIFEST, b"x");
    entry["platform"] = json!({ "os": "linux", "architecture": "riscv64" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    registry.manifest("app", "1", INDEX, &index);
    let node = Node::new(&registry).await;

    let (text, _) = told(&registry, node.pull(&format!("{}/app:1", registry.host)).await);

    assert!(text.contains("linux/riscv64"), "{text}");
}

#[tokio::test]
async fn one_program_under_many_names_is_downloaded_once() {
    let registry = Registry::start().await;
    let wasm = module("shared");
    for name in 0..6 {
        registry.artifact(&format!("app{name}"), "1", &wasm);
    }
    let node = Node::new(&registry).await;
    let names: Vec<_> = (0..6).map(|name| format!("{}/app{name}:1", registry.host)).collect();

    for image in join_all(names.iter().map(|name| node.pull(name))).await {
        assert_eq!(program(&image.unwrap()).digest, sha(&wasm));
    }

    assert_eq!(registry.seen(&format!("/blobs/{}", sha(&wasm))).len(), 1);
    assert_eq!(registry.seen("/manifests/").len(), 6);
}

#[tokio::test]
async fn no_more_downloads_run_at_once_than_are_allowed() {
    let registry = Registry::start().await;
    let go = Arc::new(Notify::new());
    let wasm: Vec<_> = (0..6).map(|app| module(&app.to_string())).collect();
    for (app, wasm) in wasm.iter().enumerate() {
        registry.artifact(&format!("app{app}"), "1", wasm);
        registry.fail(&format!("app{app}/blobs/{}", sha(wasm)), [Fault::After(go.clone())]);
    }
    let node = Node::with(&registry, |config| config.parallel_pulls = 2).await;
    let names: Vec<_> = (0..6).map(|name| format!("{}/app{name}:1", registry.host)).collect();
    // One is let go when another is there beside it, or none is still to come.
    let release = async {
        loop {
            let programs = wasm.iter().flat_map(|wasm| registry.seen(&sha(wasm))).count();
            if registry.busy() >= 2 || programs == wasm.len() {
                go.notify_one();
            }
            tokio::task::yield_now().await;
        }
    };

    tokio::select! {
        images = join_all(names.iter().map(|name| node.pull(name))) => {
            assert!(images.iter().all(Result::is_ok));
        }
        () = release => {}
    }

    assert_eq!(registry.most_at_once(), 2);
}

#[tokio::test]
async fn a_pull_beyond_the_rate_fails_once_nobody_else_pulls_the_same() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    registry.artifact("other", "1", &module("other"));
    let rate = PullRate { qps: Some(1), burst: 1 };
    let node = Node::with(&registry, |config| config.rate = rate).await;
    let (go, name) = (Arc::new(Notify::new()), format!("{}/app:1", registry.host));
    registry.fail("app/manifests/1", [Fault::After(go.clone())]);
    let (mut first, mut second) = (pin!(node.pull(&name)), pin!(node.pull(&name)));

    // Nothing is awaited meanwhile: no time passes.
    tokio::time::pause();
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    let other = node.pull(&format!("{}/other:1", registry.host)).await.unwrap_err();
    tokio::time::resume();

    assert!(other.is_throttled() && other.to_string().contains("pull QPS exceeded"), "{other}");
    assert_eq!(other.reason(), "ErrImagePull");
    assert!(poll!(&mut second).is_pending(), "the first is under way");
    go.notify_one();
    first.await.unwrap();
    assert!(second.await.unwrap_err().is_throttled() && node.find(&name).is_some());
    assert_eq!(registry.seen("app/manifests").len(), 1);
}

#[tokio::test]
async fn images_are_listed_the_largest_first_with_their_names() {
    let registry = Registry::start().await;
    let (small, large) = (module(""), module(&"x".repeat(5000)));
    registry.artifact("small", "1", &small);
    registry.artifact("large", "1", &large);
    registry.artifact("large", "2", &large);
    let node = Node::new(&registry).await;
    for name in ["small:1", "large:1", "large:2"] {
        node.pull(&format!("{}/{name}", registry.host)).await.unwrap();
    }

    let list = node.images.list();

    assert_eq!(list.len(), 2);
    assert!(list[0].size > 5000 && list[0].names[0].contains("/large@sha256:"));
    assert!(list[0].names[1].ends_with("/large:1") && list[0].names[2].ends_with("/large:2"));
    assert_eq!(list[1].names.len(), 2);
}

#[tokio::test]
async fn who_waits_for_an_image_sees_how_much_of_all_of_it_is_there() {
    let registry = Registry::start().await;
    let (first, second) = (vec![1; 3 << 20], vec![2; 1 << 20]);
    let tars = [Layer::default().file("app.wasm", &first), Layer::default().file("data", &second)];
    let tars = tars.map(|layer| layer.tar());
    let settings = config(("wasi", "wasm"), &json!({}), &tars);
    registry.image("app", &settings, &tars.clone().map(|tar| (TAR, tar)));
    registry.fail(&format!("app/blobs/{}", sha(&tars[1])), [Fault::Silence(1 << 19)]);
    let node = Node::new(&registry).await;
    let name = Reference::parse(&format!("{}/app:1", registry.host)).unwrap();
    assert_eq!(node.images.progress(&name), None);

    let keyring = Keyring::default();
    let pull = node.images.pull(&name, &keyring);
    let size = (settings.len() + tars[0].len() + tars[1].len()) as u64;
    // What waits to be written is not there yet.
    let most = size - tars[1].len() as u64 + (1 << 19);
    let seen = async {
        let here = || {
            node.images.progress(&name).map_or(0, |progress| {
                assert!(progress.size == size && progress.done <= most, "{progress:?}");
                progress.done
            })
        };
        // The first layer, and something of the second.
        while here() <= size - tars[1].len() as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        pulled = pull => panic!("{pulled:?}"),
        () = seen => {}
    }
    assert_eq!(node.images.progress(&name), None, "nobody pulls it any more");
}
