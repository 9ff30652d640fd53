//! Who is asked for an image, by `hosts.toml`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nodule_image::PullError;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::node::{Node, command, keyring};
use crate::registry::{Door, Fault, Registry, sha};

pub(crate) const NAME: &str = "registry.example";

/// A folder of `hosts.toml` files with one for the registry `name`.
pub(crate) fn hosts(name: &str, file: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(name)).unwrap();
    fs::write(folder.path().join(name).join("hosts.toml"), file).unwrap();
    folder
}

pub(crate) async fn node(registry: &Registry, folder: &Path) -> Node {
    Node::with(registry, |config| config.hosts = Some(folder.to_owned())).await
}

#[tokio::test]
async fn a_mirror_is_asked_first_in_the_registrys_name_and_without_its_password() {
    let (mirror, upstream) = (Registry::start().await, Registry::start().await);
    let digest = mirror.artifact("team/app", "1", &command(""));
    let file =
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", upstream.host, mirror.host);
    let folder = hosts(NAME, &file);
    let node = node(&mirror, folder.path()).await;
    let keys = keyring(&[(NAME, "user", "password")]);

    let image = node.pull_with(&format!("{NAME}/team/app:1"), &keys).await.unwrap();

    assert_eq!(image.id(), format!("{NAME}/team/app@{digest}"));
    assert!(upstream.seen("").is_empty());
    for seen in mirror.seen("") {
        assert!(seen.path.ends_with("?ns=registry.example"), "{}", seen.path);
        assert!(!seen.headers.contains_key("authorization"));
    }
}

#[tokio::test]
async fn where_a_mirror_fails_the_next_server_goes_on_with_what_it_sent() {
    let (mirror, upstream) = (Registry::start().await, Registry::start().await);
    let wasm = command("a");
    let file = format!(
        "server = \"http://{}\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n",
        upstream.host, mirror.host
    );
    let folder = hosts("_default", &file);
    let node = node(&mirror, folder.path()).await;
    for registry in [&mirror, &upstream] {
        registry.artifact("app", "1", &wasm);
    }
    let blob = format!("app/blobs/{}", sha(&wasm));
    mirror.fail(&blob, [Fault::Cut(20)]);

    node.pull(&format!("{NAME}/app:1")).await.unwrap();

    let rest = upstream.seen(&blob);
    assert_eq!(rest[0].headers.get("range").map(String::as_str), Some("bytes=20-"));
    assert_eq!(mirror.seen(&blob).len(), 1, "one try");
}

#[tokio::test]
async fn a_mirror_that_does_not_resolve_is_asked_for_digests_alone() {
    let (mirror, upstream) = (Registry::start().await, Registry::start().await);
    for registry in [&mirror, &upstream] {
        registry.artifact("app", "1", &command(""));
    }
    let digest = mirror.artifact("app", "1", &command(""));
    let file = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
        upstream.host, mirror.host
    );
    let folder = hosts(NAME, &file);
    let by_tag = node(&mirror, folder.path()).await;
    by_tag.pull(&format!("{NAME}/app:1")).await.unwrap();
    assert!(mirror.seen("").is_empty());
    let asked = upstream.seen("").len();
    let by_digest = node(&mirror, folder.path()).await;
    by_digest.pull(&format!("{NAME}/app@{digest}")).await.unwrap();
    assert_eq!(upstream.seen("").len(), asked);
}

#[tokio::test]
async fn a_failure_names_the_mirrors_too_and_a_bad_file_itself() {
    let upstream = Registry::start().await;
    let file =
        format!("server = \"http://{}\"\n[host.\"http://127.0.0.1:1/mirror\"]\n", upstream.host);
    let folder = hosts(NAME, &file);
    let node = node(&upstream, folder.path()).await;
    let pull = async || text(node.pull(&format!("{NAME}/app:1")).await.map(|_| ()));
    let told = pull().await;
    assert!(told.contains("no such image"), "{told}");
    assert!(told.contains("mirror http://127.0.0.1:1/mirror/v2: cannot connect"), "{told}");
    // Files are read at each pull.
    fs::write(folder.path().join(NAME).join("hosts.toml"), "sever = 1").unwrap();
    let told = pull().await;
    assert!(told.contains("unknown field `sever`") && told.contains("hosts.toml"), "{told}");
}

pub(crate) fn text(result: Result<(), PullError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn a_server_that_is_the_registrys_own_gets_its_password_and_is_asked_in_no_name() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    registry.lock_with(Door::Basic("user", "password"));
    let spelt = registry.host.replace(':', "_") + "_";
    let file = format!("server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n", registry.host);
    let folder = hosts(&spelt, &file);
    let keys = keyring(&[(&registry.host, "user", "password")]);

    let node = node(&registry, folder.path()).await;
    node.pull_with(&format!("{}/app:1", registry.host), &keys).await.unwrap();

    assert!(registry.seen("").iter().all(|seen| !seen.path.contains("ns=")));
}

#[tokio::test]
async fn a_registry_whose_file_lets_it_resolve_nothing_is_asked_for_digests_alone() {
    let upstream = Registry::start().await;
    let digest = upstream.artifact("app", "1", &command(""));
    let file = format!("server = \"http://{}\"\ncapabilities = [\"pull\"]\n", upstream.host);
    let folder = hosts(NAME, &file);
    let node = node(&upstream, folder.path()).await;

    let told = text(node.pull(&format!("{NAME}/app:1")).await.map(drop));

    assert!(told.contains("no server may be asked") && told.contains("hosts.toml"), "{told}");
    node.pull(&format!("{NAME}/app@{digest}")).await.unwrap();
}

#[tokio::test]
async fn headers_go_to_their_server_alone() {
    let (mirror, upstream) = (Registry::start().await, Registry::start().await);
    let (store, wasm) = (Registry::start().await, command(""));
    mirror.artifact("app", "1", &wasm);
    mirror.lock_with(Door::Basic("key", "pass"));
    store.put("elsewhere", "application/wasm", &wasm);
    let blob = format!("app/blobs/{}", sha(&wasm));
    let location = format!("location: http://{}/v2/elsewhere\r\n", store.host);
    mirror.fail(&blob, [Fault::Cut(20), Fault::Status(307, location, String::new())]);
    let header = "authorization = \"Basic a2V5OnBhc3M=\"\nx-tenant = [\"a\"]\n";
    let file = format!(
        "server = \"http://{}\"\n[host.\"http://{}\".header]\n{header}",
        upstream.host, mirror.host
    );
    let folder = hosts(NAME, &file);
    // A mirror is asked once: what it sent of the blob the first pull leaves.
    let node = node(&mirror, folder.path()).await;
    node.pull(&format!("{NAME}/app:1")).await.unwrap_err();

    node.pull(&format!("{NAME}/app:1")).await.unwrap();

    for seen in mirror.seen("") {
        assert_eq!(seen.headers["x-tenant"], "a");
        assert_eq!(seen.headers["authorization"], "Basic a2V5OnBhc3M=");
    }
    assert!(!upstream.seen("").is_empty());
    let elsewhere = store.seen("elsewhere");
    assert_eq!(elsewhere[0].headers["range"], "bytes=20-");
    for seen in upstream.seen("").iter().chain(&elsewhere) {
        let leaked = ["x-tenant", "authorization"].map(|name| seen.headers.contains_key(name));
        assert_eq!(leaked, [false; 2], "{seen:?}");
    }
}

#[tokio::test]
async fn a_pull_secret_is_sent_instead_of_the_files_own() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    registry.lock_with(Door::Basic("user", "password"));
    let header = "[header]\nauthorization = \"Basic a2V5OnBhc3M=\"\n";
    let folder = hosts(NAME, &format!("server = \"http://{}\"\n{header}", registry.host));
    let keys = keyring(&[(NAME, "user", "password")]);

    node(&registry, folder.path()).await.pull_with(&format!("{NAME}/app:1"), &keys).await.unwrap();

    let sent = registry.seen("/manifests/");
    assert_eq!(sent[0].headers["authorization"], "Basic a2V5OnBhc3M=");
    assert_eq!(sent.len(), 2);
}

#[tokio::test]
async fn a_redirect_without_end_is_left_with_headers_too() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    let location = format!("location: http://{}/v2/app/manifests/1\r\n", registry.host);
    let round = Fault::Status(302, location, String::new());
    registry.fail("app/manifests/1", std::iter::repeat_n(round, 20));
    let folder =
        hosts(NAME, &format!("server = \"http://{}\"\n[header]\nx-a = \"b\"\n", registry.host));

    let node = node(&registry, folder.path()).await;
    let told = text(node.pull(&format!("{NAME}/app:1")).await.map(drop));

    assert!(told.contains("refused to follow a redirect: there are too many"), "{told}");
    assert!(registry.seen("").len() < 20);
}

#[tokio::test]
async fn a_server_is_waited_for_as_long_as_its_file_says() {
    // Its connections come about, and no TLS on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Registry::start().await;
    upstream.artifact("app", "1", &command(""));
    let file = format!(
        "server = \"http://{}\"\n[host.\"https://{}\"]\ndial_timeout = \"100ms\"\n",
        upstream.host,
        silent.local_addr().unwrap()
    );
    let folder = hosts(NAME, &file);
    let hour = Duration::from_secs(3600);
    let node = Node::with(&upstream, |config| {
        config.hosts = Some(folder.path().to_owned());
        (config.patience.connect, config.patience.answer) = (hour, hour);
    });

    let node = node.await;
    let name = format!("{NAME}/app:1");
    timeout(Duration::from_secs(60), node.pull(&name)).await.expect("not for an hour").unwrap();
}
