//! The owner's end: answers commands from the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nodule_image::{Image, Images, Prune, Reference, Removed, Stocked};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::interval;

use super::message::{Ask, Here, Told};
use crate::collection::used;
use crate::local::keyring;

/// How often it is told how far downloads are.
const TELL: Duration = Duration::from_millis(100);

/// Answers for a store. Clones answer for the same.
#[derive(Clone)]
pub(crate) struct Keeper {
    images: Images,
    /// The agent's folder, where it is written what pods use.
    root: PathBuf,
}

impl Keeper {
    pub(crate) fn new(images: Images, root: PathBuf) -> Self {
        Self { images, root }
    }

    /// Answers one request. A command that is gone is not worked for any more.
    pub(crate) async fn answer(
        &self,
        ask: Ask,
        writing: &mut (impl AsyncWrite + Unpin),
    ) -> Result<()> {
        let told = match ask {
            Ask::Pull { name, credentials } => self.pull(&name, &credentials, writing).await?,
            Ask::List => self.list().await,
            Ask::Inspect { name } => self.inspect(&name).await,
            Ask::Remove { name } => self.remove(&name).await,
            Ask::Prune { tagged } => self.prune(tagged, Duration::ZERO).await.map(Told::Images),
            Ask::Load { path, name } => self.load(&path, name.as_deref()).await,
        };
        say(writing, &told.unwrap_or_else(|error| Told::Refused(format!("{error:#}")))).await
    }

    /// The outer error is of the conversation.
    async fn pull(
        &self,
        name: &str,
        credentials: &str,
        writing: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Result<Told>> {
        let reference = match Reference::parse(name) {
            Ok(reference) => reference,
            Err(error) => return Ok(Err(error.into())),
        };
        let keyring = match keyring(&[credentials.to_owned()]) {
            Ok(keyring) => keyring,
            Err(error) => return Ok(Err(error)),
        };
        let mut pull = Box::pin(self.images.pull(&reference, &keyring));
        let mut ticks = interval(TELL);
        loop {
            tokio::select! {
                pulled = &mut pull => {
                    return Ok(pulled.map(|image| Told::Here(vec![here(&image)])).map_err(Into::into));
                }
                _ = ticks.tick() => {
                    let mut downloads = self.images.downloads();
                    downloads.retain(|download| download.repository == reference.repository());
                    say(writing, &Told::Downloads(downloads)).await?;
                }
            }
        }
    }

    async fn list(&self) -> Result<Told> {
        let images = self.images.clone();
        Ok(Told::Images(spawn_blocking(move || images.stock()).await.context("list the images")?))
    }

    async fn inspect(&self, name: &str) -> Result<Told> {
        Ok(Told::Inspected(Box::new(self.images.inspect(name).await?)))
    }

    async fn remove(&self, name: &str) -> Result<Told> {
        Ok(match self.images.remove(name, self.used().await?).await? {
            Removed::Name => Told::Removed(None),
            Removed::Image(image) => Told::Removed(Some(image)),
        })
    }

    /// Removes images that no pod uses and that have been here for this long, and gives back which.
    pub(crate) async fn prune(&self, tagged: bool, youngest: Duration) -> Result<Vec<Stocked>> {
        let prune = Prune { tagged, youngest };
        Ok(self.images.prune(prune, self.used().await?).await?)
    }

    async fn load(&self, path: &Path, name: Option<&str>) -> Result<Told> {
        let name = name.map(Reference::parse).transpose()?;
        let loaded = self.images.load(path, name.as_ref()).await?;
        Ok(Told::Here(loaded.iter().map(here).collect()))
    }

    async fn used(&self) -> Result<BTreeSet<String>> {
        used(&self.images, self.root.clone()).await
    }
}

fn here(image: &Image) -> Here {
    let name = image.reference.to_string();
    Here { name, digest: image.digest.clone(), size: image.size }
}

/// Writes a line.
pub(super) async fn say(writing: &mut (impl AsyncWrite + Unpin), told: &Told) -> Result<()> {
    let mut line = serde_json::to_vec(told).context("write an answer")?;
    line.push(b'\n');
    writing.write_all(&line).await.context("answer a command")
}
