//! Whom TLS trusts, by a registry's files, and who this node is.

use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::mirrors::{NAME, hosts, node, text};
use crate::node::{Node, command, keyring};
use crate::registry::{Door, Registry};

/// Takes TLS off connections and hands them on.
struct Front {
    host: String,
    /// The PEM files of an authority, of a certificate of it, and of its key.
    authority: String,
    certificate: String,
    key: String,
    _server: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Guests {
    All,
    /// Who has a certificate of the authority.
    Known,
}

impl Front {
    async fn of(registry: &Registry, guests: Guests) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match guests {
            Guests::All => config.with_no_client_auth(),
            Guests::Known => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().clone()).unwrap();
                let known =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                config.with_client_cert_verifier(known.unwrap())
            }
        };
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![own.der().clone()], secret).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::new(config).into(), registry.host.clone()));
        let (authority, certificate) = (authority.pem(), own.pem());
        Self { host, authority, certificate, key: key.serialize_pem(), _server: server }
    }

    /// Beside a `hosts.toml`, or alone in the folder of the registry `name`.
    fn files(&self, name: &str, file: Option<&str>) -> TempDir {
        let folder = hosts(name, file.unwrap_or_default());
        let own = folder.path().join(name);
        if file.is_none() {
            fs::remove_file(own.join("hosts.toml")).unwrap();
        }
        let suffix = if file.is_some() { "pem" } else { "crt" };
        fs::write(own.join(format!("ca.{suffix}")), &self.authority).unwrap();
        fs::write(own.join("me.cert"), &self.certificate).unwrap();
        fs::write(own.join("me.key"), &self.key).unwrap();
        folder
    }

    fn folder(&self) -> String {
        self.host.replace(':', "_") + "_"
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, to: String) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(hand_on(acceptor.clone(), stream, to.clone()));
    }
}

async fn hand_on(acceptor: TlsAcceptor, stream: TcpStream, to: String) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut behind = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
}

async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    registry
}

#[tokio::test]
async fn whom_the_registrys_file_names_is_trusted_and_nobody_else() {
    let registry = registry().await;
    let front = Front::of(&registry, Guests::All).await;
    let pull = async |more: &str| {
        let file = format!("server = \"https://{}\"\n{more}\n", front.host);
        let folder = front.files(NAME, Some(&file));
        node(&registry, folder.path()).await.pull(&format!("{NAME}/app:1")).await.map(drop)
    };
    for file in ["", "skip_verify = false", "ca = []"] {
        let told = text(pull(file).await);
        assert!(told.contains("no trusted TLS connection"), "{told}");
        assert!(told.contains("install the registry's CA"), "{told}");
    }
    assert!(registry.seen("").is_empty());
    for file in ["ca = \"ca.pem\"", "ca = [\"ca.pem\"]", "skip_verify = true"] {
        pull(file).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_wants_to_know_the_node_is_told_by_its_files() {
    let registry = registry().await;
    let front = Front::of(&registry, Guests::Known).await;
    let (name, image) = (front.folder(), format!("{}/app:1", front.host));
    let pull = async |file: Option<&str>| {
        let folder = front.files(&name, file);
        node(&registry, folder.path()).await.pull(&image).await.map(drop)
    };
    let told = text(pull(Some("ca = \"ca.pem\"\n")).await);
    assert!(told.contains(&front.host) && registry.seen("").is_empty(), "{told}");
    pull(Some("ca = \"ca.pem\"\nclient = [[\"me.cert\", \"me.key\"]]\n")).await.unwrap();
    // Docker's way, without a file that says it.
    pull(None).await.unwrap();
}

#[tokio::test]
async fn authorities_that_are_none_are_told() {
    let registry = registry().await;
    let front = Front::of(&registry, Guests::All).await;
    let folder = front.files(&front.folder(), None);
    fs::write(folder.path().join(front.folder()).join("ca.crt"), "no PEM").unwrap();
    let pulled = node(&registry, folder.path()).await.pull(&format!("{}/app:1", front.host)).await;
    let told = text(pulled.map(drop));
    assert!(told.contains("ca.crt: holds no certificate") && told.contains("hosts.toml"), "{told}");
}

/// Neither needs a word in the node's configuration.
#[tokio::test]
async fn a_registry_of_this_machine_is_asked_as_it_speaks() {
    let registry = registry().await;
    registry.lock_with(Door::Basic("user", "password"));
    let front = Front::of(&registry, Guests::All).await;
    for host in [&registry.host, &front.host] {
        let node = Node::with(&registry, |config| config.plain_http.clear()).await;
        let keys = keyring(&[(host, "user", "password")]);
        node.pull_with(&format!("{host}/app:1"), &keys).await.unwrap();
    }
    // Who names its authority wants it checked, and TLS.
    for (host, word) in [(&registry.host, "InvalidContentType"), (&front.host, "UnknownIssuer")] {
        let folder = hosts(&(host.replace(':', "_") + "_"), "ca = []\n");
        let node = Node::with(&registry, |config| {
            config.plain_http.clear();
            config.hosts = Some(folder.path().to_owned());
        });
        let told = text(node.await.pull(&format!("{host}/app:1")).await.map(drop));
        assert!(told.contains("no trusted TLS connection") && told.contains(word), "{told}");
    }
}

#[tokio::test]
async fn a_registry_is_known_by_its_address_of_ipv6() {
    let registry = Registry::start_at("[::1]:0").await;
    registry.artifact("app", "1", &command(""));
    registry.lock_with(Door::Basic("user", "password"));
    let node = Node::with(&registry, |config| config.plain_http.clear()).await;
    let name = format!("{}/app:1", registry.host);
    let keys = keyring(&[(&registry.host, "user", "password")]);
    let image = node.pull_with(&name, &keys).await.unwrap();
    assert_eq!(node.find(&name).map(|found| found.id()), Some(image.id()));
    assert!(node.images.list()[0].names.contains(&name));
}

#[tokio::test]
async fn a_plain_address_is_asked_over_tls_first_where_its_file_thinks_of_tls() {
    let registry = registry().await;
    let front = Front::of(&registry, Guests::All).await;
    for host in [&registry.host, &front.host] {
        let folder =
            front.files(NAME, Some(&format!("server = \"http://{host}\"\nca = \"ca.pem\"\n")));
        node(&registry, folder.path()).await.pull(&format!("{NAME}/app:1")).await.unwrap();
    }
    // A certificate that is not trusted is no reason to go on without one.
    let asked = registry.seen("").len();
    let file = format!("server = \"http://{}\"\nskip_verify = false\n", front.host);
    let folder = front.files(NAME, Some(&file));
    let pulled = node(&registry, folder.path()).await.pull(&format!("{NAME}/app:1")).await;
    assert!(text(pulled.map(drop)).contains("UnknownIssuer"));
    assert_eq!(registry.seen("").len(), asked);
}
