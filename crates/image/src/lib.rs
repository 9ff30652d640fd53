//! Images: names, pulls, credentials, the content store and the cache of compiled programs.
//!
//! [`Images`] is the whole interface. A pull asks the registry what a name means, downloads
//! what is not here yet, verifies every byte against the digest that leads to it, and only
//! then gives it a place on disk. A compilation runs `nodule-compile` once per program and
//! engine, and seals what it made: code is handed out only if the seal holds. All work is done in the caller's task: there are no tasks of its own, and a call
//! that is dropped leaves nothing but a download that the next call takes up.
//!
//! Nothing here trusts a registry: sizes are limited before and while content is read, errors
//! too, and content comes from the registry that the user named or where it redirects to.
//!
//! Read `pull.rs` first, then `fetch.rs` and `download.rs`; `classify.rs` knows the packagings, `tree.rs` what becomes of
//! layers of files, `hosts.rs` who is asked and `silence.rs` for how long, `gc.rs` what is removed again, `store.rs` the layout on disk, `compile.rs`, `cache.rs` and `seal.rs` compile, `registry.rs` and `auth.rs` the conversation with a registry.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::time::Instant;

mod access;
mod added;
mod artifact;
mod auth;
mod cache;
mod challenge;
mod classify;
mod clients;
mod compile;
mod config;
mod credential;
mod digest;
mod download;
mod error;
mod fetch;
mod files;
mod flight;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod gc;
mod glob;
mod holds;
mod hosts;
mod image;
mod import;
mod inspect;
mod interface;
mod keyring;
mod layout;
mod manifest;
mod metrics;
mod pace;
mod partial;
mod platform;
mod program;
mod progress;
mod provider;
mod pull;
mod push;
mod rate;
mod reference;
mod registry;
mod remove;
mod retry;
mod seal;
mod shared;
mod silence;
mod stock;
mod store;
mod stranger;
mod transport;
mod tree;
mod volume;
mod wasm;

pub use access::Verification;
pub use classify::Packaging;
pub use compile::{CompileError, Compiled};
pub use config::{CompileLimits, Config, Limits, Patience};
pub use credential::{Secret, ServiceAccount};
pub use error::PullError;
pub use gc::{Collect, Collected};
pub use image::{Image, Settings};
pub use import::{ImportError, Local};
pub use inspect::{Inside, InspectError, Inspected, Verdict};
pub use interface::Interface;
pub use keyring::{Keyring, SecretError};
pub use metrics::Metrics;
pub use pace::Pace;
pub use program::{Program, ProgramError};
pub use progress::{Download, Progress};
pub use provider::{Identity, Provider, ProviderError, TokenAttributes, TokenCache};
pub use push::{PushError, push};
pub use rate::PullRate;
pub use reference::{InvalidReference, Reference};
pub use remove::{Prune, RemoveError, Removed};
pub use retry::Retry;
pub use stock::{LookUpError, Stocked};
pub use store::StoreError;
pub use volume::Purpose;
pub use wasm::Kind;

use cache::Cache;
use clients::Clients;
use flight::Flights;
use gc::Uses;
use holds::Holds;
use metrics::{Current, size_class};
use program::Programs;
use provider::Answers;
use rate::{Rate, Underway};
use shared::Shared;
use silence::Silence;
use store::{Store, blocking};

const USER_AGENT: &str = concat!("nodule/", env!("CARGO_PKG_VERSION"));

/// The images of this node. Clones are the same images.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    config: Config,
    metrics: Metrics,
    store: Arc<Store>,
    clients: Clients,
    /// What was compiled for the engine that the compiler named at the start.
    cache: Arc<Cache>,
    /// How many pulls have begun of late, and which have not ended.
    rate: Rate,
    underway: Underway,
    /// By image: how long nothing has come.
    silences: Shared<Silence>,
    /// Slots for downloads.
    pulls: Semaphore,
    /// Slots for compilations.
    compilers: Semaphore,
    /// By blob.
    downloads: Flights,
    /// What of them is told.
    under_way: progress::UnderWay,
    plans: progress::Plans,
    /// By program.
    compilations: Flights,
    /// By chain of layers.
    trees: Flights,
    /// By image.
    proofs: Flights,
    /// What providers said, and who asks them now.
    answers: Answers,
    /// Programs that were looked at among an image's files, which never change.
    programs: Programs,
    /// What must not be removed now.
    holds: Holds,
    /// When images were used.
    uses: Uses,
    /// Layers of the compiler's jail that are known to be missing.
    missing: Mutex<BTreeSet<String>>,
}

impl Images {
    /// Opens the store and asks the compiler which engine it compiles for.
    ///
    /// # Errors
    /// When the folder cannot be used, the compiler does not answer, or the process has no
    /// TLS provider.
    pub async fn open(config: Config, metrics: Metrics) -> Result<Self, Error> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(Error::NoTlsProvider);
        }
        let path = config.compiler.clone();
        let engine = compile::engine(&path).await;
        let engine = engine.map_err(|cause| Error::Compiler { path, cause })?;
        let (root, counts) = (config.root.clone(), metrics.clone());
        if let Some(hash) = &config.providers_hash {
            metrics.providers.info.with_label_values(&[hash]).set(1);
        }
        let (store, cache) = blocking(move || {
            let store = Arc::new(Store::open(root)?);
            counts.count_proofs(&store);
            Cache::open(store.clone(), engine).map(|cache| (store, Arc::new(cache)))
        })
        .await?;
        Ok(Self(Arc::new(Inner {
            store,
            cache,
            clients: Clients::default(),
            rate: Rate::default(),
            underway: Underway::default(),
            silences: Shared::default(),
            pulls: Semaphore::new(config.parallel_pulls.max(1)),
            compilers: Semaphore::new(config.compile.parallel.max(1)),
            downloads: Flights::default(),
            under_way: progress::UnderWay::default(),
            plans: progress::Plans::default(),
            compilations: Flights::default(),
            trees: Flights::default(),
            proofs: Flights::default(),
            answers: Answers::default(),
            programs: Programs::default(),
            holds: Holds::default(),
            uses: Uses::default(),
            missing: Mutex::default(),
            metrics,
            config,
        })))
    }

    /// The image that a name meant when it was last pulled, if it is on this node, to be run.
    pub fn find(&self, reference: &Reference) -> Option<Image> {
        self.0.find(reference, Purpose::Run)
    }

    /// The same for either purpose; what was pulled for the other one is made ready, where all of it is here.
    pub async fn present(&self, reference: &Reference, purpose: Purpose) -> Option<Image> {
        let _counted = self.0.metrics.operation("image_status");
        self.0.present(reference, purpose).await
    }

    /// Whether a pod with these credentials may use an image that is here. If not, a pull with them tells.
    ///
    /// # Errors
    /// When what is known of it cannot be read.
    pub fn permits(&self, image: &Image, keyring: &Keyring) -> Result<bool, StoreError> {
        self.0.permits(image, keyring)
    }

    /// Asks the registry what a name means and downloads what is not here.
    ///
    /// A pull beyond the rate ends as soon as no other one of the same name is under way: the image may be here then.
    ///
    /// # Errors
    /// [`PullError`] says what a user can do.
    pub async fn pull(&self, reference: &Reference, keyring: &Keyring) -> Result<Image, PullError> {
        self.pull_for(reference, keyring, Purpose::Run).await
    }

    /// The same for either purpose: anything that has files can be mounted.
    ///
    /// # Errors
    /// [`PullError`] says what a user can do.
    pub async fn pull_for(
        &self,
        reference: &Reference,
        keyring: &Keyring,
        purpose: Purpose,
    ) -> Result<Image, PullError> {
        let Inner { metrics, .. } = &*self.0;
        let (_in_progress, since) = (Current::of(&metrics.in_progress), Instant::now());
        let operation = metrics.operation("pull_image");
        let image = operation.end(self.0.pull(reference, keyring, purpose).await)?;
        let pulls = metrics.pulls.with_label_values(&[size_class(image.size)]);
        pulls.observe(since.elapsed().as_secs_f64());
        Ok(image)
    }

    /// Takes up what lies on this machine as an image of a name that says what is in it, for `find`.
    ///
    /// # Errors
    /// [`ImportError`] names the path and what is wrong there.
    pub async fn import(&self, local: &Local) -> Result<Image, ImportError> {
        self.0.import(local).await
    }

    /// Takes up all images of a folder in the form of the OCI image layout or of an archive, or a Wasm file, under names
    /// that pods may use: `name` where there is one image, else their own.
    ///
    /// # Errors
    /// [`ImportError`] names the path and what is wrong there; images before it are taken up.
    pub async fn load(
        &self,
        path: &std::path::Path,
        name: Option<&Reference>,
    ) -> Result<Vec<Image>, ImportError> {
        Arc::clone(&self.0).load(path, name).await
    }

    /// Whether a path is of files that all who use an image share: nothing may be made or changed there.
    pub fn shares(&self, path: &std::path::Path) -> bool {
        path.starts_with(self.0.store.root())
    }

    /// The compiled form of an image's program: compiled now, if it was not before or what is there is not as it was sealed.
    ///
    /// # Errors
    /// [`CompileError::BadProgram`] if the image is at fault, else [`CompileError::Failed`].
    pub async fn compile(
        &self,
        image: &Image,
        program: &Program,
    ) -> Result<Compiled, CompileError> {
        self.0.compile(image, program).await
    }

    /// The program that an image runs under the name `argv0` in the folder `cwd`. Where the image is one program, it is
    /// that; else the name is sought among the image's files, as a shell would.
    ///
    /// # Errors
    /// [`ProgramError`] when there is no such file, or it is no Wasm.
    pub async fn program(
        &self,
        image: &Image,
        argv0: &str,
        cwd: &str,
    ) -> Result<Program, ProgramError> {
        self.0.program(image, argv0, cwd).await
    }

    /// Removes images that nobody uses, as far as `collect` says so, and all content that belongs to no image. Those of
    /// which a pod says that it runs them (`used`, each `…@sha256:…`) stay, and those that are in somebody's hand.
    ///
    /// # Errors
    /// When the store cannot be read or changed: what was not removed is found by the next call.
    pub async fn collect(
        &self,
        collect: Collect,
        used: BTreeSet<String>,
    ) -> Result<Collected, StoreError> {
        Arc::clone(&self.0).collect(collect, used).await
    }

    /// Removes every image that nobody uses and that is not too young (`imageMinimumGCAge`), however much room there is: what
    /// the node does before it evicts pods for their disk. `used` is as for `collect`.
    ///
    /// # Errors
    /// When the store cannot be read or changed: what was not removed is found by the next call.
    pub async fn free(&self, used: BTreeSet<String>) -> Result<Collected, StoreError> {
        let all = Collect { high: 0, low: 0, ..self.0.config.collect.clone() };
        self.collect(all, used).await
    }

    /// All images of this node, the largest first.
    pub fn list(&self) -> Vec<Listed> {
        let _counted = self.0.metrics.operation("list_images");
        let mut names = self.0.store.names();
        names.sort_by_key(|(name, _)| (!name.contains('@'), name.clone()));
        let listed = |record: image::Record| {
            let own = names.iter().filter(|(_, digest)| *digest == record.digest);
            Listed { names: own.map(|(name, _)| name.clone()).collect(), size: record.size() }
        };
        let mut images: Vec<_> = self.0.store.records().into_iter().map(listed).collect();
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.names.cmp(&b.names)));
        images
    }
}

/// An image of this node, as the Node's status lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its names: those by digest first.
    pub names: Vec<String>,
    /// Bytes of all its content.
    pub size: u64,
}

/// Images that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The compiler does not tell its engine.
    #[error("ask {} for its engine: {cause}", .path.display())]
    Compiler {
        /// The compiler.
        path: PathBuf,
        /// What happened.
        cause: String,
    },
    /// The binary has to install a `rustls` provider first.
    #[error("this process has no TLS provider")]
    NoTlsProvider,
}
