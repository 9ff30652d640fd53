//! Agents that are killed outright, in the middle of their work. Such an agent is this test program, run once more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nodule_image::{Collect, Keyring, Reference};

use crate::layers::{Layer, TAR, config as image_config, gzip};
use crate::node::{Node, command, config, module, open, program};
use crate::registry::{Fault, Registry, sha};

/// What the other process is told.
const TASK: &str = "NODULE_TEST_TASK";
const ROOT: &str = "NODULE_TEST_ROOT";
const HOST: &str = "NODULE_TEST_HOST";

/// Everything that may go, goes.
fn everything() -> Collect {
    Collect { high: 0, low: 0, youngest: Duration::ZERO, oldest: None }
}

#[tokio::test]
#[ignore = "what the tests beside it do in a process of its own"]
async fn victim() {
    let told = |name| std::env::var(name).expect("the test that starts this one tells it");
    let (task, host) = (told(TASK), told(HOST));
    let mut settings = config(Path::new(&told(ROOT)));
    settings.plain_http.push(host.clone());
    let images = open(settings).await;
    if task == "collect" {
        images.collect(everything(), BTreeSet::new()).await.unwrap();
        return;
    }
    let name = Reference::parse(&format!("{host}/{task}:1")).unwrap();
    images.pull(&name, &Keyring::default()).await.unwrap();
}

/// A process that ends with its test.
struct Victim(Child);

impl Victim {
    fn start(task: &str, node: &Node, registry: &Registry) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kills::victim", "--ignored"]);
        command.env(TASK, task).env(ROOT, node.root()).env(HOST, &registry.host);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Kills it as soon as the disk looks so. It has not ended by itself.
    async fn kill_when(mut self, mut looks_so: impl FnMut() -> bool) {
        let wait = async {
            while !looks_so() {
                assert!(self.0.try_wait().unwrap().is_none(), "it has ended too early");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait).await.expect("it gets so far");
        self.0.kill().unwrap();
        assert_eq!(self.0.wait().unwrap().code(), None, "it was killed");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// The agent that comes next in a node's folder.
async fn next(node: &Node, registry: &Registry) -> nodule_image::Images {
    let mut settings = config(node.root());
    settings.plain_http.push(registry.host.clone());
    open(settings).await
}

#[tokio::test]
async fn a_pull_goes_on_where_it_was_killed() {
    let registry = Registry::start().await;
    let (program, data) = (Layer::default().file("app.wasm", &command("")), vec![7; 3 << 20]);
    let tars = [program.tar(), Layer::default().file("data", &data).tar()];
    let settings = serde_json::json!({ "Entrypoint": ["/app.wasm"] });
    let settings = image_config(("wasi", "wasm"), &settings, &tars);
    registry.image("app", &settings, &tars.clone().map(|tar| (TAR, tar)));
    let [first, second] = tars.map(|tar| format!("app/blobs/{}", sha(&tar)));
    registry.fail(&second, [Fault::Silence(2 << 20)]);
    let node = Node::new(&registry).await;

    let partial = node.root().join("partial").join(second.rsplit(':').next().unwrap());
    let is_half = || fs::metadata(&partial).is_ok_and(|file| file.len() > 1 << 20);
    Victim::start("app", &node, &registry).kill_when(is_half).await;
    let there = fs::metadata(&partial).unwrap().len();
    let name = Reference::parse(&format!("{}/app:1", registry.host)).unwrap();
    let image = next(&node, &registry).await.pull(&name, &Keyring::default()).await.unwrap();

    assert_eq!(fs::read(image.root.unwrap().join("data")).unwrap(), data);
    assert_eq!(registry.seen(&first).len(), 1, "what was whole is not fetched again");
    let asked: Vec<_> = registry.seen(&second);
    let range = asked[1].headers.get("range").map(String::as_str);
    assert_eq!((asked.len(), range), (2, Some(&*format!("bytes={there}-"))));
    assert!(node.files("partial").is_empty());
}

#[tokio::test]
async fn files_that_were_half_unpacked_are_unpacked_anew_without_a_download() {
    let registry = Registry::start().await;
    let app = Layer::default().file("app.wasm", &command(""));
    let layer = (0..20_000).fold(app, |layer, number| layer.file(&format!("f{number}"), b"x"));
    let tars = [layer.tar()];
    let settings = image_config(("wasi", "wasm"), &serde_json::json!({}), &tars);
    registry.image("app", &settings, &[(TAR, gzip(&tars[0]))]);
    let node = Node::new(&registry).await;

    let partial = node.root().join("partial");
    let unpacks = || {
        let entries = fs::read_dir(&partial).into_iter().flatten().flatten();
        let new = |name: &str| name.starts_with("new-");
        let mut trees = entries.filter(|entry| new(&entry.file_name().to_string_lossy()));
        trees.any(|tree| count(&tree.path()) > 100)
    };
    Victim::start("app", &node, &registry).kill_when(unpacks).await;
    assert_eq!(count(&node.root().join("trees")), 0, "a tree has no name before it is whole");
    let next = next(&node, &registry).await;
    assert!(node.files("partial").is_empty(), "what was begun is gone");
    let name = Reference::parse(&format!("{}/app:1", registry.host)).unwrap();
    let image = next.pull(&name, &Keyring::default()).await.unwrap();

    assert_eq!(count(&image.root.unwrap()), 20_001);
    assert_eq!(registry.seen("/blobs/").len(), 2, "the configuration and the layer, once");
}

#[tokio::test]
async fn a_collection_that_is_killed_leaves_whole_images_or_none() {
    const IMAGES: usize = 100;
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let contents: Vec<_> = (0..IMAGES).map(|number| module(&format!("{number:04}"))).collect();
    for (number, content) in contents.iter().enumerate() {
        registry.artifact(&format!("app{number}"), "1", content);
        node.pull(&format!("{}/app{number}:1", registry.host)).await.unwrap();
    }
    let before = registry.seen("/blobs/").len();

    let records = node.root().join("images");
    Victim::start("collect", &node, &registry).kill_when(|| count(&records) < IMAGES / 2).await;
    let next = next(&node, &registry).await;
    let mut found = 0;
    for (number, content) in contents.iter().enumerate() {
        let name = Reference::parse(&format!("{}/app{number}:1", registry.host)).unwrap();
        if let Some(image) = next.find(&name) {
            assert_eq!(fs::read(program(&image).wasm).unwrap(), *content);
            found += 1;
        }
        let image = next.pull(&name, &Keyring::default()).await.unwrap();
        assert_eq!(fs::read(program(&image).wasm).unwrap(), *content);
    }

    let fetched = registry.seen("/blobs/").len() - before;
    assert!(fetched <= 2 * (IMAGES - found), "{fetched} blobs for {} images", IMAGES - found);
    next.collect(everything(), BTreeSet::new()).await.unwrap();
    assert_eq!(count(&node.root().join("blobs/sha256")), 0, "nothing is forgotten");
}
