//! From a name to verified content on disk.
//!
//! Every pod fetches the manifest with its own credentials: that proves that it may have the
//! image. Blobs are then downloaded once, by whoever comes first.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::Inner;
use crate::classify::{Packaging, Plan, classify};
use crate::digest::Digest;
use crate::error::{Problem, PullError};
use crate::image::{Blob, Image, Record, Settings};
use crate::keyring::{Credential, Keyring};
use crate::manifest::{ArtifactConfig, Descriptor, ImageConfig, Manifest};
use crate::partial;
use crate::platform;
use crate::reference::Reference;
use crate::registry::Repository;
use crate::retry::Tries;
use crate::store::{StoreError, blocking};
use crate::wasm::Kind;

/// A manifest whose digest is known to be right.
struct Verified {
    digest: Digest,
    size: u64,
    manifest: Manifest,
}

impl Inner {
    /// Tries every credential that the pod has for the repository; without any, once as nobody.
    pub(crate) async fn pull(
        &self,
        reference: &Reference,
        keyring: &Keyring,
    ) -> Result<Image, PullError> {
        let mut accounts: Vec<_> = keyring.credentials(reference).into_iter().map(Some).collect();
        if accounts.is_empty() {
            accounts.push(None);
        }
        let mut refused = Vec::new();
        for account in accounts {
            match Box::pin(self.pull_as(reference, account)).await {
                Ok(image) => return Ok(image),
                Err(problem) if problem.is_answer_to_the_credential() => refused.push(problem),
                Err(problem) => return Err(PullError::new(reference, problem, refused)),
            }
        }
        let last = refused.pop().expect("there is at least one account, and each was refused");
        Err(PullError::new(reference, last, refused))
    }

    async fn pull_as(
        &self,
        reference: &Reference,
        credential: Option<&Credential>,
    ) -> Result<Image, Problem> {
        let repository = Repository::new(&self.http, &self.config, reference, credential);
        self.pull_from(&repository, reference).await
    }

    /// Pulls from this repository, which is the reference's.
    pub(crate) async fn pull_from(
        &self,
        repository: &Repository<'_>,
        reference: &Reference,
    ) -> Result<Image, Problem> {
        let top = self.manifest(repository, reference.target(), reference.digest()).await?;
        let digest = top.digest.clone();
        let record = match self.store.record(&digest) {
            Some(record) => record,
            None => self.fetch(repository, top).await?,
        };
        let (store, name, meant) = (self.store.clone(), reference.clone(), digest.clone());
        blocking(move || store.put_name(&name, &meant)).await?;
        tracing::info!(image = %reference, %digest, size = record.size(), "image pulled");
        let wasm = self.store.blob(&record.wasm);
        Ok(record.image(reference, wasm))
    }

    /// Downloads what a manifest or index leads to, and writes it down.
    async fn fetch(&self, repository: &Repository<'_>, top: Verified) -> Result<Record, Problem> {
        let mut blobs = vec![top.blob()];
        let digest = top.digest.clone();
        let chosen = self.choose(repository, top).await?;
        blobs.push(chosen.blob());
        let plan = classify(&chosen.manifest)?;
        let settings = match &plan.config {
            Some(config) => {
                let path = self.blob(repository, config, "the configuration", &mut blobs).await?;
                settings(&plan, &path)?
            }
            None => Settings::default(),
        };
        let path = self.blob(repository, &plan.wasm, "the Wasm layer", &mut blobs).await?;
        blobs.dedup();
        let record = Record {
            digest,
            manifest: chosen.digest,
            packaging: plan.packaging,
            kind: kind(&path)?,
            wasm: digest_of(&plan.wasm)?,
            settings,
            title: plan.wasm.title(),
            blobs,
        };
        let store = self.store.clone();
        Ok(blocking(move || store.put_record(&record).map(|()| record)).await?)
    }

    /// Follows an index to its entry for Wasm. An index in an index is followed once.
    async fn choose(
        &self,
        repository: &Repository<'_>,
        top: Verified,
    ) -> Result<Verified, Problem> {
        let mut chosen = top;
        for _ in 0..2 {
            let Some(entries) = &chosen.manifest.manifests else { return Ok(chosen) };
            let entry = platform::choose(entries)?;
            let digest = digest_of(entry)?;
            chosen = self.manifest(repository, &entry.digest, Some(&digest)).await?;
        }
        match chosen.manifest.manifests {
            None => Ok(chosen),
            Some(_) => Err(malformed("the manifest", "an index in an index in an index")),
        }
    }

    /// Fetches and keeps a manifest. What it is asked for by digest must have that digest.
    async fn manifest(
        &self,
        repository: &Repository<'_>,
        target: &str,
        expected: Option<&Digest>,
    ) -> Result<Verified, Problem> {
        let content = self.manifest_content(repository, target).await?;
        let digest = Digest::of(&content);
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(wrong_digest("the manifest", expected, &digest));
        }
        let manifest: Manifest = parse("the manifest", &content)?;
        if manifest.manifests.is_some() && manifest.layers.is_some() {
            return Err(malformed("the manifest", "it is an index and a manifest at once"));
        }
        let (store, size) = (self.store.clone(), content.len() as u64);
        let digest = blocking(move || store.put(&digest, &content).map(|()| digest)).await?;
        Ok(Verified { digest, size, manifest })
    }

    async fn manifest_content(
        &self,
        repository: &Repository<'_>,
        target: &str,
    ) -> Result<Vec<u8>, Problem> {
        let mut tries = Tries::new(&self.config.retry);
        loop {
            let slot = self.pulls.acquire().await;
            match repository.manifest(target, self.config.limits.manifest).await {
                Ok(content) => return Ok(content),
                Err(problem) => {
                    drop(slot);
                    sleep(tries.pause(problem)?).await;
                }
            }
        }
    }

    /// The path of a blob that is here, verified; downloads it if it was not.
    async fn blob(
        &self,
        repository: &Repository<'_>,
        descriptor: &Descriptor,
        what: &'static str,
        blobs: &mut Vec<Blob>,
    ) -> Result<PathBuf, Problem> {
        let limits = &self.config.limits;
        let limit = if what == "the Wasm layer" { limits.wasm } else { limits.config };
        if descriptor.size > limit {
            return Err(Problem::TooLarge { what, size: descriptor.size, limit });
        }
        let blob = Blob { digest: digest_of(descriptor)?, size: descriptor.size };
        self.download(repository, &blob, what).await?;
        let path = self.store.blob(&blob.digest);
        blobs.push(blob);
        Ok(path)
    }
}

impl Verified {
    fn blob(&self) -> Blob {
        Blob { digest: self.digest.clone(), size: self.size }
    }
}

/// Reads an image's configuration; for an artifact, checks that it speaks of the same layer.
fn settings(plan: &Plan, path: &Path) -> Result<Settings, Problem> {
    let what = "the configuration";
    let content = std::fs::read(path).map_err(StoreError::on("read", path))?;
    if plan.packaging == Packaging::Image {
        let config: ImageConfig = parse(what, &content)?;
        return Ok(config.config.unwrap_or_default().into());
    }
    let config: ArtifactConfig = parse(what, &content)?;
    match config.layer_digests {
        Some(digests) if digests != [plan.wasm.digest.as_str()] => {
            Err(malformed(what, "its layerDigests are not those of the manifest"))
        }
        _ => Ok(Settings::default()),
    }
}

/// Looks at the first bytes of what is said to be Wasm, before anything else does. What is not is not kept.
fn kind(path: &Path) -> Result<Kind, Problem> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(StoreError::on("open", path))?;
    file.take(8).read_to_end(&mut start).map_err(StoreError::on("read", path))?;
    Kind::of(&start).map_err(|found| match partial::remove(path) {
        Ok(()) => Problem::NotWasmInside { found },
        Err(error) => error.into(),
    })
}

fn parse<T: DeserializeOwned>(what: &'static str, content: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(content).map_err(|error| malformed(what, &error.to_string()))
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest, Problem> {
    let bad = || malformed("the manifest", &format!("unknown digest {:?}", descriptor.digest));
    Digest::parse(&descriptor.digest).ok_or_else(bad)
}

fn malformed(what: &'static str, cause: &str) -> Problem {
    Problem::Malformed { what, cause: cause.to_owned() }
}

pub(crate) fn wrong_digest(what: &'static str, expected: &Digest, got: &Digest) -> Problem {
    Problem::WrongDigest { what, expected: expected.to_string(), got: got.to_string() }
}
