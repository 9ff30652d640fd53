//! From a manifest to what it leads to, verified and on disk.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::Inner;
use crate::classify::{Packaging, Plan, classify, refuse};
use crate::digest::Digest;
use crate::error::Problem;
use crate::files::FILES;
use crate::holds::Hold;
use crate::image::{Blob, Gathered, Record, Settings, Wasm};
use crate::manifest::{ArtifactConfig, Descriptor, ImageConfig, Manifest};
use crate::partial;
use crate::platform;
use crate::reference::Reference;
use crate::registry::Repository;
use crate::retry::Tries;
use crate::store::{StoreError, blocking};
use crate::stranger::Stranger;
use crate::volume::Purpose;
use crate::wasm;

/// A manifest whose digest is known to be right.
pub(crate) struct Verified {
    pub(crate) digest: Digest,
    size: u64,
    pub(crate) manifest: Manifest,
    /// The entries of the index that has nothing for Wasm: then this is but a guess.
    instead: Option<Vec<Descriptor>>,
    hold: Hold,
}

/// What an image's configuration says.
#[derive(Default)]
pub(crate) struct Configuration {
    settings: Settings,
    /// The digests of the layers before they were compressed, as they are written.
    pub(crate) diffs: Vec<String>,
}

impl Inner {
    /// Downloads what a manifest or index leads to, and writes it down.
    pub(crate) async fn fetch(
        &self,
        repository: &Repository<'_>,
        reference: &Reference,
        top: Verified,
        purpose: Purpose,
    ) -> Result<Record, Problem> {
        let mut gathered = Gathered::default();
        let digest = top.digest.clone();
        gathered.add(&top);
        let chosen = self.choose(repository, top, purpose).await?;
        gathered.add(&chosen);
        let _plan = self.plan(reference, &chosen.manifest);
        let content = match purpose {
            Purpose::Run => self.runnable(repository, &chosen, &mut gathered).await?,
            Purpose::Mount => self.mountable(repository, &chosen, &mut gathered).await?,
        };
        gathered.blobs.dedup();
        let record = Record { digest, manifest: chosen.digest, blobs: gathered.blobs, ..content };
        let record = self.keep(record).await?;
        self.holds.refer();
        drop(gathered.holds);
        Ok(record)
    }

    /// What there is to run.
    async fn runnable(
        &self,
        repository: &Repository<'_>,
        chosen: &Verified,
        gathered: &mut Gathered,
    ) -> Result<Record, Problem> {
        let plan = classify(&chosen.manifest)?;
        let Configuration { settings, diffs } =
            self.configuration(repository, chosen, &plan, gathered).await?;
        let wasm = match &plan.wasm {
            Some(layer) => Some(self.wasm(repository, layer, gathered).await?),
            None => None,
        };
        let tree = self.tree(repository, &plan, &diffs, gathered).await?;
        let title = plan.wasm.as_ref().and_then(Descriptor::title);
        let empty = Record::empty(&chosen.digest, plan.packaging);
        Ok(Record { wasm, tree, settings, title, ..empty })
    }

    /// Writes down what is known of an image, beside what is known of it for another purpose.
    async fn keep(&self, record: Record) -> Result<Record, StoreError> {
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let turn = self.proofs.turn(record.digest.hex()).await;
        blocking(move || {
            let record = match store.record(&record.digest) {
                Some(known) => record.join(known),
                None => record,
            };
            let kept = store.put_record(&record).map(|()| record);
            metrics.count_proofs(&store);
            drop(turn);
            kept
        })
        .await
    }

    /// What the configuration says, where the plan wants it.
    pub(crate) async fn configuration(
        &self,
        repository: &Repository<'_>,
        chosen: &Verified,
        plan: &Plan,
        gathered: &mut Gathered,
    ) -> Result<Configuration, Problem> {
        let Some(config) = &plan.config else { return Ok(Configuration::default()) };
        let path = self.blob(repository, config, "the configuration", gathered).await?;
        let content = std::fs::read(&path).map_err(StoreError::on("read", &path))?;
        let read = read_configuration(chosen, plan, &content);
        read.map_err(|problem| match (problem, &chosen.instead) {
            // What the index has not is the reason why this was looked at.
            (Problem::NotWasm { found: Stranger::Linux, .. }, Some(entries)) => {
                platform::none(entries)
            }
            (problem, _) => problem,
        })
    }

    /// The layer that is the program.
    async fn wasm(
        &self,
        repository: &Repository<'_>,
        layer: &Descriptor,
        gathered: &mut Gathered,
    ) -> Result<Wasm, Problem> {
        let path = self.blob(repository, layer, "the Wasm layer", gathered).await?;
        let digest = digest_of(layer)?;
        // What is said to be Wasm is looked at before anything else does.
        match wasm::look(&path).map_err(StoreError::on("read", &path))? {
            Ok(kind) => Ok(Wasm { digest, kind }),
            Err(found) => {
                self.reject(path).await?;
                Err(Problem::NotWasmInside { found })
            }
        }
    }

    /// Removes a blob that is not what it should be, unless it is so for another image.
    pub(crate) async fn reject(&self, path: PathBuf) -> Result<(), StoreError> {
        let store = self.store.clone();
        blocking(move || match store.referred().contains(&path) {
            true => Ok(()),
            false => partial::remove(&path),
        })
        .await
    }

    /// Follows an index to its entry for Wasm. An index in an index is followed once.
    async fn choose(
        &self,
        repository: &Repository<'_>,
        top: Verified,
        purpose: Purpose,
    ) -> Result<Verified, Problem> {
        let mut chosen = top;
        for _ in 0..2 {
            let Some(entries) = chosen.manifest.manifests.take() else { return Ok(chosen) };
            chosen = self.entry(repository, entries, purpose).await?;
        }
        match chosen.manifest.manifests {
            None => Ok(chosen),
            Some(_) => Err(malformed("the manifest", "an index in an index in an index")),
        }
    }

    /// The entry that says that it is Wasm, else one that turns out to be, else the one of this machine's platform.
    async fn entry(
        &self,
        repository: &Repository<'_>,
        entries: Vec<Descriptor>,
        purpose: Purpose,
    ) -> Result<Verified, Problem> {
        let fetch = async |entry: &Descriptor| {
            let digest = digest_of(entry)?;
            self.manifest(repository, &entry.digest, Some(&digest)).await
        };
        if let Some(entry) = platform::choose(&entries) {
            return fetch(entry).await;
        }
        if purpose == Purpose::Mount {
            let entry = platform::any(&entries).ok_or_else(|| platform::none(&entries))?;
            return fetch(entry).await;
        }
        for entry in platform::silent(&entries) {
            let looked_into = fetch(entry).await?;
            if classify(&looked_into.manifest).is_ok_and(|plan| plan.wasm.is_some()) {
                return Ok(looked_into);
            }
        }
        match platform::native(&entries) {
            Some(entry) => Ok(Verified { instead: Some(entries.clone()), ..fetch(entry).await? }),
            None => Err(platform::none(&entries)),
        }
    }

    /// Fetches and keeps a manifest. What it is asked for by digest must have that digest.
    pub(crate) async fn manifest(
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
        let hold = self.holds.hold(store.blob(&digest));
        let digest = blocking(move || store.put(&digest, &content).map(|()| digest)).await?;
        Ok(Verified { digest, size, manifest, instead: None, hold })
    }

    async fn manifest_content(
        &self,
        repository: &Repository<'_>,
        target: &str,
    ) -> Result<Vec<u8>, Problem> {
        let mut tries = Tries::new(&repository.retry);
        loop {
            // What is read from a disk waits for no download.
            let slot = match repository.is_local() {
                true => None,
                false => Some(self.pulls.acquire().await),
            };
            let _asking = repository.ask();
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
    pub(crate) async fn blob(
        &self,
        repository: &Repository<'_>,
        descriptor: &Descriptor,
        what: &'static str,
        gathered: &mut Gathered,
    ) -> Result<PathBuf, Problem> {
        let limits = &self.config.limits;
        let limit = match what {
            "the Wasm layer" => limits.wasm,
            FILES => limits.layer,
            _ => limits.config,
        };
        if descriptor.size > limit {
            return Err(Problem::TooLarge { what, size: descriptor.size, limit });
        }
        let blob = Blob { digest: digest_of(descriptor)?, size: descriptor.size };
        let path = self.store.blob(&blob.digest);
        gathered.holds.push(self.holds.hold(path.clone()));
        self.download(repository, &blob, what).await?;
        gathered.blobs.push(blob);
        Ok(path)
    }
}

impl Gathered {
    fn add(&mut self, manifest: &Verified) {
        self.blobs.push(Blob { digest: manifest.digest.clone(), size: manifest.size });
        self.holds.push(manifest.hold.clone());
    }
}

/// Reads a configuration; one of an artifact must speak of the same layer.
fn read_configuration(
    chosen: &Verified,
    plan: &Plan,
    content: &[u8],
) -> Result<Configuration, Problem> {
    let what = "the configuration";
    if plan.packaging == Packaging::Artifact {
        let config: ArtifactConfig = parse(what, content)?;
        let layer = plan.wasm.as_ref().map(|layer| layer.digest.clone());
        return match config.layer_digests {
            Some(digests) if digests != Vec::from_iter(layer) => {
                Err(malformed(what, "its layerDigests are not those of the manifest"))
            }
            _ => Ok(Configuration::default()),
        };
    }
    let mut config: ImageConfig = parse(what, content)?;
    let diffs = config.rootfs.take().and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if plan.packaging == Packaging::Files {
        return Ok(Configuration { settings: Settings::default(), diffs });
    }
    if config.spin_lock_version.is_some() {
        return Err(refuse(&chosen.manifest, Stranger::Spin));
    }
    let annotations = chosen.manifest.annotations.clone().unwrap_or_default();
    if plan.packaging == Packaging::Root && config.is_native(&annotations) {
        return Err(refuse(&chosen.manifest, Stranger::Linux));
    }
    Ok(Configuration { settings: config.config.unwrap_or_default().into(), diffs })
}

fn parse<T: DeserializeOwned>(what: &'static str, content: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(content).map_err(|error| malformed(what, &error.to_string()))
}

pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest, Problem> {
    let bad = || malformed("the manifest", &format!("unknown digest {:?}", descriptor.digest));
    Digest::parse(&descriptor.digest).ok_or_else(bad)
}

pub(crate) fn malformed(what: &'static str, cause: &str) -> Problem {
    Problem::Malformed { what, cause: cause.to_owned() }
}

pub(crate) fn wrong_digest(what: &'static str, expected: &Digest, got: &Digest) -> Problem {
    Problem::WrongDigest { what, expected: expected.to_string(), got: got.to_string() }
}
