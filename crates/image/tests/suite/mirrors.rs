//! Who is asked for an image, by `hosts.toml`, and whom TLS trusts.

use std::fs;
use std::path::Path;

use nodule_image::PullError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::node::{Node, command, keyring};
use crate::registry::{Fault, Registry};

const NAME: &str = "registry.example";

/// A folder of `hosts.toml` files with one for the registry `name`.
fn hosts(name: &str, file: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(name)).unwrap();
    fs::write(folder.path().join(name).join("hosts.toml"), file).unwrap();
    folder
}

async fn node(registry: &Registry, folder: &Path) -> Node {
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
    let blob = format!("app/blobs/{}", crate::registry::sha(&wasm));
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
    fs::write(folder.path().join(NAME).join("hosts.toml"), "sever = 1").unwrap();
    let told = pull().await;
    assert!(told.contains("unknown field `sever`") && told.contains("hosts.toml"), "{told}");
}

fn text(result: Result<(), PullError>) -> String {
    result.unwrap_err().to_string()
}

/// Takes TLS off connections and hands them on.
struct Front {
    host: String,
    authority: String,
    _server: JoinSet<()>,
}

impl Front {
    async fn of(registry: &Registry) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&key, &authority).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(
            rustls::crypto::ring::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (acceptor, behind) =
            (TlsAcceptor::from(std::sync::Arc::new(config)), registry.host.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(hand_on(acceptor.clone(), stream, behind.clone()));
            }
        });
        Self { host, authority: authority.pem(), _server: server }
    }
}

async fn hand_on(acceptor: TlsAcceptor, stream: TcpStream, to: String) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut behind = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
}

#[tokio::test]
async fn tls_trusts_whom_the_registrys_files_name() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    let front = Front::of(&registry).await;
    let spelt = front.host.replace(':', "_") + "_";
    let name = format!("{}/app:1", front.host);

    let nobody = tempfile::tempdir().unwrap();
    let told = text(node(&registry, nobody.path()).await.pull(&name).await.map(|_| ()));
    assert!(told.contains("no trusted TLS connection"), "{told}");
    for file in ["ca = \"ca.pem\"\n", "skip_verify = true\n"] {
        let folder = hosts(&spelt, file);
        fs::write(folder.path().join(&spelt).join("ca.pem"), &front.authority).unwrap();
        node(&registry, folder.path()).await.pull(&name).await.unwrap();
    }
    let folder = hosts(&spelt, "");
    fs::remove_file(folder.path().join(&spelt).join("hosts.toml")).unwrap();
    fs::write(folder.path().join(&spelt).join("docker.crt"), &front.authority).unwrap();
    node(&registry, folder.path()).await.pull(&name).await.unwrap();
    fs::write(folder.path().join(&spelt).join("docker.crt"), "no PEM").unwrap();
    let told = text(node(&registry, folder.path()).await.pull(&name).await.map(|_| ()));
    assert!(told.contains("TLS"), "{told}");
}
