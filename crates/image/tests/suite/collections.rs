//! What is removed when there is no room, and what never is.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nodule_image::{Collect, Collected, Image};

use crate::layers::Layer;
use crate::node::{Node, command, compile, config, open};
use crate::registry::{Fault, Registry, sha};

/// As if the disk were full, and everything old enough.
fn full() -> Collect {
    Collect { high: 0, low: 0, youngest: Duration::ZERO, oldest: None }
}

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

/// The files of a node's images, without what says nothing of images.
fn left(node: &Node) -> Vec<String> {
    let mut left = Vec::new();
    for folder in ["blobs/sha256", "trees", "images", "access", "programs", "partial"] {
        left.extend(node.files(folder).into_iter().map(|name| format!("{folder}/{name}")));
    }
    for engine in node.files("aot") {
        left.extend(node.files(&format!("aot/{engine}")));
    }
    left
}

async fn pulled(node: &Node, registry: &Registry, name: &str) -> Image {
    node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap()
}

fn push(registry: &Registry) {
    registry.artifact("artifact", "1", &command("a"));
    registry.rooted("rooted", &[Layer::default().file("app.wasm", &command("r"))]);
}

/// Pulls both and compiles them; whoever has the images has them in hand.
async fn filled(node: &Node, registry: &Registry) -> [Image; 2] {
    let artifact = pulled(node, registry, "artifact").await;
    let rooted = pulled(node, registry, "rooted").await;
    compile(&node.images, &artifact).await.unwrap();
    let program = node.images.program(&rooted, "/app.wasm", "/").await.unwrap();
    node.images.compile(&rooted, &program).await.unwrap();
    [artifact, rooted]
}

#[tokio::test]
async fn proofs_of_what_never_came_go_and_those_of_a_pull_under_way_stay() {
    let registry = Registry::start().await;
    registry.artifact("kept", "1", &command("k"));
    registry.artifact("late", "1", &command("l"));
    registry.fail(&format!("late/blobs/{}", sha(&command("l"))), [Fault::Silence(0)]);
    let node = Node::new(&registry).await;
    let kept = pulled(&node, &registry, "kept").await;
    let proofs = || node.files("access");
    let before = proofs();
    let late = format!("{}/late:1", registry.host);
    let swept = async {
        while proofs().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        node.images.collect(Collect::default(), none()).await.unwrap();
        assert_eq!(proofs().len(), 2, "it is under way");
    };
    tokio::select! {
        pulled = node.pull(&late) => panic!("{pulled:?}"),
        () = swept => {}
    }

    node.images.collect(Collect::default(), none()).await.unwrap();

    assert_eq!(proofs(), before);
    drop(kept);
}

#[tokio::test]
async fn unused_images_go_with_their_trees_and_compiled_code() {
    let registry = Registry::start().await;
    push(&registry);
    let node = Node::new(&registry).await;
    let [artifact, rooted] = filled(&node, &registry).await;
    let names = [&artifact, &rooted].map(|image| image.reference.to_string());
    let all = left(&node);
    drop((artifact, rooted));

    let collected = node.images.collect(full(), none()).await.unwrap();

    assert_eq!((collected.spaced, collected.aged), (2, 0));
    assert!(collected.lacking > 0, "the disk is never empty");
    assert_eq!(left(&node), Vec::<String>::new(), "of {all:?}");
    assert!(names.iter().all(|name| node.find(name).is_none()) && node.images.list().is_empty());
    filled(&node, &registry).await;
    assert_eq!(left(&node).len(), all.len());
}

#[tokio::test]
async fn an_image_that_a_pod_uses_or_somebody_has_in_hand_stays_whole() {
    let registry = Registry::start().await;
    push(&registry);
    let node = Node::new(&registry).await;
    let [artifact, rooted] = filled(&node, &registry).await;
    let all = BTreeSet::from_iter(left(&node));

    let used = BTreeSet::from([artifact.id()]);
    drop(artifact);
    assert_eq!(node.images.collect(full(), used.clone()).await.unwrap().spaced, 0);
    assert_eq!(BTreeSet::from_iter(left(&node)), all);
    drop(rooted);
    assert_eq!(node.images.collect(full(), used).await.unwrap().spaced, 1);

    let artifact = node.find(&format!("{}/artifact:1", registry.host)).unwrap();
    assert!(compile(&node.images, &artifact).await.unwrap().took.is_none(), "its code is there");
    assert!(node.files("trees").is_empty() && node.files("programs").is_empty());
}

#[tokio::test]
async fn images_share_content_and_the_last_one_takes_it_along() {
    let registry = Registry::start().await;
    let wasm = command("shared");
    registry.artifact("a", "1", &wasm);
    registry.artifact("b", "1", &wasm);
    let node = Node::new(&registry).await;
    let (a, b) = (pulled(&node, &registry, "a").await, pulled(&node, &registry, "b").await);
    assert_eq!(a.digest, b.digest, "one image under two names");
    registry.rooted("c", &[Layer::default().file("app.wasm", &wasm)]);
    let c = pulled(&node, &registry, "c").await;
    compile(&node.images, &a).await.unwrap();
    let program = node.images.program(&c, "/app.wasm", "/").await.unwrap();
    drop((a, b));

    node.images.collect(full(), none()).await.unwrap();

    let again = node.images.compile(&c, &program).await.unwrap();
    assert!(again.took.is_none(), "the same program is in another image");
}

#[tokio::test]
async fn young_images_stay_and_old_ones_go_though_there_is_room() {
    let registry = Registry::start().await;
    push(&registry);
    let node = Node::new(&registry).await;
    drop(filled(&node, &registry).await);

    let young = Collect { youngest: Duration::from_hours(1), ..full() };
    assert_eq!(node.images.collect(young, none()).await.unwrap().spaced, 0);
    let roomy = Collect { high: 100, low: 100, ..full() };
    let kept = node.images.collect(roomy.clone(), none()).await.unwrap();
    assert_eq!(kept, Collected::default());
    let old = Collect { oldest: Some(Duration::ZERO), ..roomy };
    assert_eq!(node.images.collect(old, none()).await.unwrap().aged, 2);
    assert!(left(&node).is_empty());
}

#[tokio::test]
async fn a_collection_leaves_a_pull_that_is_under_way_alone() {
    let registry = Registry::start().await;
    push(&registry);
    let node = Node::new(&registry).await;
    let path = {
        let image = pulled(&node, &registry, "rooted").await;
        let blobs = registry.seen("/blobs/");
        drop(image);
        blobs.last().unwrap().path.trim_start_matches("/v2/").to_owned()
    };
    node.images.collect(full(), none()).await.unwrap();
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    registry.fail(&path, [Fault::After(go.clone())]);
    let pull = pulled(&node, &registry, "rooted");
    let collect = async {
        while registry.busy() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!node.files("blobs/sha256").is_empty(), "the manifest and the configuration");
        let before = node.files("blobs/sha256").len();
        node.images.collect(full(), none()).await.unwrap();
        assert_eq!(node.files("blobs/sha256").len(), before);
        go.notify_one();
    };
    let (image, ()) = tokio::join!(pull, collect);
    assert!(image.root.unwrap().join("app.wasm").exists());
}

/// Each step of a removal that was cut, as the disk has it then.
#[tokio::test]
async fn a_collection_that_was_cut_leaves_a_store_that_the_next_agent_uses() {
    let registry = Registry::start().await;
    push(&registry);
    for cut in ["refs", "images", "trees", "aot", "blobs/sha256"] {
        let node = Node::new(&registry).await;
        drop(filled(&node, &registry).await);
        for step in ["refs", "images", "trees", "aot", "blobs/sha256"] {
            fs::remove_dir_all(node.root().join(step)).unwrap();
            if step == cut {
                break;
            }
        }
        fs::create_dir_all(node.root().join("partial/new-0123456789abcdef/deep")).unwrap();

        let mut settings = config(node.root());
        settings.plain_http.push(registry.host.clone());
        let next = open(settings).await;
        next.collect(Collect { high: 100, ..full() }, none()).await.unwrap();

        assert!(node.files("partial").is_empty(), "{cut}");
        filled(&node, &registry).await;
    }
}
