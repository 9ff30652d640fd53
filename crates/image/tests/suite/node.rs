//! The images of a node for one test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nodule_image::{Config, Image, Images, Keyring, PullError, Reference, Retry};
use serde_json::json;
use tempfile::TempDir;

use crate::registry::Registry;

/// A core module with nothing in it; what is added makes another program of it.
pub(crate) fn module(more: &str) -> Vec<u8> {
    [b"\0asm\x01\0\0\0", more.as_bytes()].concat()
}

pub(crate) struct Node {
    pub(crate) images: Images,
    folder: TempDir,
}

impl Node {
    /// A node that may speak plain HTTP with this registry, and is never patient between tries.
    pub(crate) async fn new(registry: &Registry) -> Self {
        Self::with(registry, |_| ()).await
    }

    pub(crate) async fn with(registry: &Registry, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.plain_http.push(registry.host.clone());
        change(&mut config);
        Self { images: open(config).await, folder }
    }

    pub(crate) async fn pull(&self, name: &str) -> Result<Image, PullError> {
        self.pull_with(name, &Keyring::default()).await
    }

    pub(crate) async fn pull_with(&self, name: &str, keys: &Keyring) -> Result<Image, PullError> {
        self.images.pull(&Reference::parse(name).unwrap(), keys).await
    }

    pub(crate) fn find(&self, name: &str) -> Option<Image> {
        self.images.find(&Reference::parse(name).unwrap())
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The names of the files in a folder of the store.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

pub(crate) async fn open(config: Config) -> Images {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Images::open(config).await.unwrap()
}

pub(crate) fn config(root: &Path) -> Config {
    let compiler = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/compiler.sh");
    let mut config = Config::new(PathBuf::from(root), compiler);
    let none = Duration::ZERO;
    config.retry = Retry { tries: 3, first: none, longest: none, longest_asked: none };
    config
}

/// A keyring of one secret.
pub(crate) fn keyring(entries: &[(&str, &str, &str)]) -> Keyring {
    let entry = |(key, username, password): &(&str, &str, &str)| {
        ((*key).to_owned(), json!({ "username": username, "password": password }))
    };
    let auths: serde_json::Map<_, _> = entries.iter().map(entry).collect();
    let content = json!({ "auths": auths }).to_string();
    let mut keyring = Keyring::default();
    let data = [(".dockerconfigjson", content.as_bytes())];
    keyring.add_secret("kubernetes.io/dockerconfigjson", data).unwrap();
    keyring
}

/// What went wrong, and that its text says where.
pub(crate) fn told(
    registry: &Registry,
    result: Result<Image, PullError>,
) -> (String, &'static str) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("from registry {}", registry.host)), "{text}");
    assert!(text.contains(&format!("pull {}/", registry.host)), "{text}");
    assert!(text.contains("; "), "no remedy: {text}");
    (text, error.reason())
}
