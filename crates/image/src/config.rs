//! What a node's images are held to.

use std::path::PathBuf;
use std::time::Duration;

use crate::access::Verification;
use crate::gc::Collect;
use crate::pace::Pace;
use crate::provider::Provider;
use crate::rate::PullRate;
use crate::retry::Retry;

/// What the images of a node are to do, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of all content. Only the agent may write there.
    pub root: PathBuf,
    /// Registries (`host` or `host:port`, as in image names) that are asked over plain HTTP.
    pub plain_http: Vec<String>,
    /// The folder of containerd's `hosts.toml` files, one folder for each registry: mirrors, and whom TLS trusts.
    pub hosts: Option<PathBuf>,
    /// The `nodule-compile` binary.
    pub compiler: PathBuf,
    /// What a compilation may use.
    pub compile: CompileLimits,
    /// Downloads at the same time.
    pub parallel_pulls: usize,
    /// How often images are pulled.
    pub rate: PullRate,
    /// When unused images are removed.
    pub collect: Collect,
    /// Which images that are here need a proof of access.
    pub verification: Verification,
    /// The node's own credentials, in the form of docker's `config.json`. It need not be there, and is read at each pull.
    pub credentials: Option<PathBuf>,
    /// Programs that know credentials, in the order in which they are asked.
    pub providers: Vec<Provider>,
    /// What tells their configuration from another one; none where there are none.
    pub providers_hash: Option<String>,
    /// How large content may be.
    pub limits: Limits,
    /// How long a registry is waited for.
    pub patience: Patience,
    /// How often a registry is asked.
    pub retry: Retry,
}

/// What a compilation may use, and who it is.
#[derive(Debug, Clone)]
pub struct CompileLimits {
    /// Memory, in MiB: 16 or more. A program takes about 35 times its size.
    pub memory_mib: u32,
    /// Processor time, in seconds: 1 or more. It is killed after twice this time.
    pub seconds: u32,
    /// Compiled code, in MiB: 1 or more. It is about three times the size of the program.
    pub output_mib: u32,
    /// The user and the group that the compiler becomes where the agent is root. Nothing else should be this user.
    pub user: u32,
    /// Compilations at the same time.
    pub parallel: usize,
}

impl Default for CompileLimits {
    /// The user is the one before those that pods become.
    fn default() -> Self {
        Self { memory_mib: 2048, seconds: 300, output_mib: 1024, user: 1_999_999_999, parallel: 1 }
    }
}

/// How large content may be, in bytes where nothing else is said.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A manifest or an index.
    pub manifest: u64,
    /// A configuration.
    pub config: u64,
    /// A Wasm binary.
    pub wasm: u64,
    /// A layer of files, as it is in the registry.
    pub layer: u64,
    /// All files of an image, unpacked.
    pub unpacked: u64,
    /// How many files, folders and links an image's layers may hold.
    pub files: u64,
    /// How many layers of files an image may have.
    pub layers: usize,
}

/// How long a registry is waited for.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the beginning of an answer.
    pub answer: Duration,
    /// For the next bytes of an answer.
    pub idle: Duration,
    /// For the next bytes of an image, whoever is asked for it and however often.
    pub silence: Duration,
    /// How fast a manifest or a blob has to come.
    pub pace: Pace,
    /// For a provider of credentials, which is not a registry but may ask one.
    pub provider: Duration,
}

impl Config {
    /// The settings of an ordinary node.
    pub fn new(root: PathBuf, compiler: PathBuf) -> Self {
        Self {
            root,
            plain_http: Vec::new(),
            hosts: None,
            compiler,
            compile: CompileLimits::default(),
            parallel_pulls: 4,
            rate: PullRate::default(),
            collect: Collect::default(),
            verification: Verification::default(),
            credentials: None,
            providers: Vec::new(),
            providers_hash: None,
            limits: Limits::default(),
            patience: Patience::default(),
            retry: Retry::default(),
        }
    }
}

impl Default for Limits {
    /// Registries themselves refuse manifests above 4 MiB (distribution specification). Docker stops at 127 layers.
    fn default() -> Self {
        Self {
            manifest: 4 << 20,
            config: 1 << 20,
            wasm: 512 << 20,
            layer: 4 << 30,
            unpacked: 4 << 30,
            files: 1_000_000,
            layers: 128,
        }
    }
}

impl Default for Patience {
    /// The longest silence is containerd's (`image_pull_progress_timeout`).
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            silence: Duration::from_secs(300),
            pace: Pace::default(),
            provider: Duration::from_secs(60),
        }
    }
}
