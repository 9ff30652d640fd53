//! Pulls from a registry that fails or lies.

use std::time::Duration;

use nodule_image::Pace;
use serde_json::json;

use crate::mirrors::{self, NAME, hosts};
use crate::node::{Node, module, program, told};
use crate::registry::{Fault, MANIFEST, Registry, descriptor, sha};

/// A registry with one artifact: its program, and the paths of its manifest and program.
struct Case {
    registry: Registry,
    node: Node,
    wasm: Vec<u8>,
    name: String,
    blob: String,
}

const TAG: &str = "app/manifests/1";

async fn case() -> Case {
    let registry = Registry::start().await;
    let wasm = module(&"abcdefgh".repeat(1000));
    registry.artifact("app", "1", &wasm);
    let node =
        Node::with(&registry, |config| config.patience.idle = Duration::from_millis(200)).await;
    let (name, blob) = (format!("{}/app:1", registry.host), format!("app/blobs/{}", sha(&wasm)));
    Case { registry, node, wasm, name, blob }
}

impl Case {
    async fn pulls(&self) {
        let image = self.node.pull(&self.name).await.unwrap();
        assert_eq!(std::fs::read(program(&image).wasm).unwrap(), self.wasm);
    }

    /// The pull fails, and nothing of the program is left.
    async fn fails(&self, words: &str) -> &'static str {
        let (text, reason) = told(&self.registry, self.node.pull(&self.name).await);
        assert!(text.contains(words), "{text}");
        assert!(self.node.find(&self.name).is_none());
        reason
    }

    fn nothing_is_kept(&self) {
        assert!(self.node.files("partial").is_empty(), "{:?}", self.node.files("partial"));
        let hex = sha(&self.wasm).replace("sha256:", "");
        assert!(!self.node.files("blobs/sha256").contains(&hex));
    }
}

fn status(code: u16) -> Fault {
    Fault::Status(code, String::new(), String::new())
}

#[tokio::test]
async fn an_unknown_image_is_told_and_asked_for_once() {
    let case = case().await;
    let (text, reason) =
        told(&case.registry, case.node.pull(&format!("{}/none:1", case.registry.host)).await);
    assert!(text.contains("no such image: 404 Not Found MANIFEST_UNKNOWN: nothing here"), "{text}");
    assert_eq!(reason, "ErrImagePull");
    assert_eq!(case.registry.seen("none").len(), 1);
}

#[tokio::test]
async fn a_forbidden_image_is_told_and_asked_for_once() {
    let case = case().await;
    case.registry.fail(TAG, [status(403)]);
    case.fails("access denied").await;
    assert_eq!(case.registry.seen(TAG).len(), 1);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let case = case().await;
    let later = Fault::Status(429, "retry-after: 3600\r\n".to_owned(), String::new());
    case.registry.fail(TAG, [later, status(503)]);
    case.registry.fail(&case.blob, [status(500), status(502)]);
    case.pulls().await;
    assert_eq!(case.registry.seen(TAG).len(), 3);
}

#[tokio::test]
async fn a_registry_that_stays_busy_is_given_up() {
    let case = case().await;
    case.registry.fail(TAG, [status(500), status(500), status(500)]);
    assert_eq!(case.fails("not able to answer now: 500").await, "ErrImagePull");
    assert_eq!(case.registry.seen(TAG).len(), 3);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_ended() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Cut(1000)]);
    case.pulls().await;
    let ranges: Vec<_> = case.registry.seen(&case.blob);
    assert_eq!(ranges[1].headers["range"], "bytes=1000-");
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_beginning() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Cut(1000), Fault::NoRange]);
    case.pulls().await;
}

#[tokio::test]
async fn a_registry_that_refuses_ranges_is_read_from_the_beginning() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Cut(1000), status(416)]);
    case.pulls().await;
    assert_eq!(case.registry.seen(&case.blob).len(), 3);
}

#[tokio::test]
async fn a_registry_that_drips_holds_no_slot_and_what_came_is_kept() {
    let case = case().await;
    let none = Duration::ZERO;
    let node = Node::with(&case.registry, |config| {
        config.parallel_pulls = 1;
        config.patience.pace = Pace { bytes: u64::MAX, within: none };
    });
    let node = node.await;
    case.registry.fail(&case.blob, [Fault::Silence(100), Fault::Silence(100), Fault::Silence(100)]);
    let (text, reason) = told(&case.registry, node.pull(&case.name).await);
    assert!(text.contains("the Wasm layer comes too slowly: "), "{text}");
    assert!(text.contains("check the network"), "{text}");
    assert_eq!((reason, case.registry.seen(&case.blob).len()), ("ErrImagePull", 3));
    assert_eq!(node.files("partial").len(), 1);
    case.registry.artifact("other", "1", &module(""));
    node.pull(&format!("{}/other:1", case.registry.host)).await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_drips_is_too_slow() {
    let case = case().await;
    let node = Node::with(&case.registry, |config| {
        config.patience.pace = Pace { bytes: u64::MAX, within: Duration::ZERO };
    });
    case.registry.fail(TAG, [Fault::Drip, Fault::Drip, Fault::Drip]);
    let (text, _) = told(&case.registry, node.await.pull(&case.name).await);
    assert!(text.contains("the manifest comes too slowly: "), "{text}");
}

#[tokio::test]
async fn a_download_that_is_always_cut_is_told_and_what_came_is_kept_for_later() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Cut(100), Fault::Cut(0), Fault::Cut(0)]);
    case.fails("was cut off after").await;
    case.pulls().await;
}

#[tokio::test]
async fn a_body_longer_than_the_manifest_says_is_refused() {
    let case = case().await;
    let longer = [&*case.wasm, b"!"].concat();
    case.registry.fail(&case.blob, [Fault::Body(longer)]);
    case.fails("longer than the 8008 bytes").await;
    case.nothing_is_kept();
    assert_eq!(case.registry.seen(&case.blob).len(), 1);
}

#[tokio::test]
async fn a_body_without_end_is_left() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Endless(200)]);
    case.fails("longer than").await;
    case.nothing_is_kept();
}

#[tokio::test]
async fn a_body_shorter_than_the_manifest_says_is_refused() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Body(module(""))]);
    case.fails("has 8 bytes, the manifest says 8008").await;
    case.nothing_is_kept();
}

#[tokio::test]
async fn other_content_of_the_right_size_is_refused() {
    let case = case().await;
    let mut other = case.wasm.clone();
    other[100] ^= 1;
    case.registry.fail(&case.blob, [Fault::Body(other.clone())]);
    case.fails(&format!("has digest {}, expected {}", sha(&other), sha(&case.wasm))).await;
    case.nothing_is_kept();
    assert_eq!(case.registry.seen(&case.blob).len(), 1, "not asked again");
}

#[tokio::test]
async fn a_slow_registry_is_waited_for_and_a_silent_one_is_not() {
    let case = case().await;
    case.registry.fail(&case.blob, [Fault::Silence(10), Fault::Drip]);
    // The first is left after a while, and what it sent is used.
    case.registry.fail(TAG, [Fault::Drip]);
    case.pulls().await;
    assert_eq!(case.registry.seen(&case.blob).len(), 2);
}

#[tokio::test]
async fn a_registry_that_stays_silent_is_told() {
    let case = case().await;
    case.registry.fail(TAG, [Fault::Silence(3), Fault::Silence(3), Fault::Silence(3)]);
    case.fails("the manifest did not arrive within 200ms").await;
}

#[tokio::test]
async fn a_manifest_or_an_error_without_end_is_left() {
    let case = case().await;
    case.registry.fail(TAG, [Fault::Endless(200)]);
    case.fails("more than the limit of 4194304").await;
    case.registry.fail(TAG, [Fault::Endless(404)]);
    case.fails("no such image").await;
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let case = case().await;
    let digest = case.node.pull(&case.name).await.unwrap().digest;
    let path = format!("app/manifests/{digest}");
    case.registry.put(&path, MANIFEST, br#"{"layers":[]}"#);
    let name = format!("{}/app@{digest}", case.registry.host);
    let (text, _) = told(&case.registry, case.node.pull(&name).await);
    assert!(text.contains("the manifest has digest sha256:"), "{text}");
}

#[tokio::test]
async fn a_manifest_that_is_none_is_refused() {
    let case = case().await;
    for body in ["<html>", "[]", r#"{"layers":[],"manifests":[]}"#, r#"{"layers":[{"size":-1}]}"#] {
        case.registry.fail(TAG, [Fault::Body(body.into())]);
        case.fails("the manifest is malformed").await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_begun() {
    let case = case().await;
    let mut layer = descriptor("application/wasm", &case.wasm);
    layer["size"] = json!(600 << 20);
    let config = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    case.registry.manifest("app", "1", MANIFEST, &manifest);
    case.fails("the Wasm layer has 629145600 bytes, more than the limit of 536870912").await;
    assert!(case.registry.seen("/blobs/").is_empty());
}

#[tokio::test]
async fn native_code_in_a_wasm_layer_is_refused_and_not_kept() {
    let case = case().await;
    let elf = b"\x7fELF\x02\x01\x01\0 and more";
    case.registry.artifact("app", "1", elf);
    case.fails("holds native code (ELF)").await;
    let hex = sha(elf).replace("sha256:", "");
    assert!(!case.node.files("blobs/sha256").contains(&hex));
}

#[tokio::test]
async fn an_artifact_whose_configuration_names_another_layer_is_refused() {
    let case = case().await;
    let config = json!({ "layerDigests": [sha(b"another")] }).to_string();
    let config = ("application/vnd.wasm.config.v0+json", config.as_bytes());
    case.registry.push("app", "1", config, ("application/wasm", &case.wasm));
    case.fails("layerDigests").await;
}

#[tokio::test]
async fn a_registry_that_does_not_run_is_unavailable() {
    let case = case().await;
    let Case { registry, node, name, .. } = case;
    let host = registry.host.clone();
    drop(registry);
    // The listener closes with its task.
    let error = loop {
        match node.pull(&name).await.unwrap_err() {
            error if error.reason() == "RegistryUnavailable" => break error.to_string(),
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(error.contains(&host) && error.contains("refused"), "{error}");
    assert!(error.contains("check that the registry runs"), "{error}");
}

#[tokio::test]
async fn plain_http_is_spoken_only_where_it_is_configured() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &module(""));
    // At an address that says so: one of this machine would be asked without TLS, too.
    let folder = hosts(NAME, &format!("server = \"https://{}\"\n", registry.host));
    let error = mirrors::node(&registry, folder.path()).await.pull(&format!("{NAME}/app:1")).await;
    let error = error.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no trusted TLS connection") && text.contains("plain-HTTP"), "{text}");
    assert_eq!(error.reason(), "ErrImagePull");
    assert!(registry.seen("/v2/").is_empty());
}

#[tokio::test]
async fn a_registry_whose_name_nobody_knows_is_unavailable() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let error = node.pull("registry.invalid/app:1").await.unwrap_err();
    assert!(error.to_string().contains("cannot find the registry's address"), "{error}");
    assert_eq!(error.reason(), "RegistryUnavailable");
}
