//! The images of a node for one test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nodule_image::{
    CompileError, Compiled, Config, Image, Images, Keyring, Metrics, Program, PullError, Reference,
    Retry,
};
use prometheus::TextEncoder;
use serde_json::json;
use tempfile::TempDir;

use crate::registry::Registry;

/// A core module with nothing in it; what is added makes another file of it, which does not compile.
pub(crate) fn module(more: &str) -> Vec<u8> {
    [b"\0asm\x01\0\0\0", more.as_bytes()].concat()
}

/// A command that ends at once: `(module (func (export "_start")))`. What is added, less than 100 bytes, makes another
/// program of it.
pub(crate) fn command(more: &str) -> Vec<u8> {
    let sections =
        b"\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    let length = |length: usize| u8::try_from(length).unwrap();
    let custom = [&[0, length(more.len() + 1), length(more.len())][..], more.as_bytes()].concat();
    let custom = if more.is_empty() { Vec::new() } else { custom };
    [b"\0asm\x01\0\0\0", &sections[..], &custom].concat()
}

pub(crate) struct Node {
    pub(crate) images: Images,
    /// What `/metrics` would serve.
    pub(crate) metrics: prometheus::Registry,
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
        let metrics = prometheus::Registry::new();
        Self { images: open_counting(config, &metrics).await.unwrap(), metrics, folder }
    }

    /// What is counted under a name and its labels (`name{label="value"}`); none if it never was.
    pub(crate) fn counted(&self, series: &str) -> Option<f64> {
        let shown = TextEncoder::new().encode_to_string(&self.metrics.gather()).unwrap();
        let mut lines = shown.lines().filter_map(|line| line.split_once(' '));
        lines.find_map(|(name, value)| (name == series).then(|| value.parse().unwrap()))
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
    try_open(config).await.unwrap()
}

pub(crate) async fn try_open(config: Config) -> Result<Images, nodule_image::Error> {
    open_counting(config, &prometheus::Registry::new()).await
}

async fn open_counting(
    config: Config,
    metrics: &prometheus::Registry,
) -> Result<Images, nodule_image::Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Images::open(config, Metrics::register(metrics).unwrap()).await
}

pub(crate) fn config(root: &Path) -> Config {
    let mut config = Config::new(PathBuf::from(root), compiler());
    let none = Duration::ZERO;
    config.rate.qps = None;
    config.retry = Retry { tries: 3, first: none, longest: none, longest_asked: none };
    config
}

/// `nodule-compile`, which is built beside the tests.
fn compiler() -> PathBuf {
    let programs = std::env::current_exe().unwrap();
    let beside = programs.parent().unwrap().parent().unwrap().join("nodule-compile");
    let compiler = std::env::var_os("NODULE_COMPILE").map_or(beside, PathBuf::from);
    assert!(compiler.exists(), "{}: cargo build -p nodule-compile", compiler.display());
    compiler
}

/// The program of an image that is one.
pub(crate) fn program(image: &Image) -> Program {
    image.program.clone().unwrap()
}

pub(crate) async fn compile(images: &Images, image: &Image) -> Result<Compiled, CompileError> {
    images.compile(image, &program(image)).await
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
