//! What an image is, and whether this node can run it.

use std::collections::BTreeSet;
use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::Images;
use crate::image::{Image, Settings};
use crate::interface::Interface;
use crate::program::Program;
use crate::stock::{LookUpError, Stocked, stocked};
use crate::store::{StoreError, blocking};
use crate::wasm::Kind;

/// All that can be said of an image of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// What the list has of it.
    #[serde(flatten)]
    pub stocked: Stocked,
    /// `sha256:…` of the manifest in use: another than `digest` where that is an index.
    pub manifest: String,
    /// How the image wants to be run.
    pub config: Settings,
    /// The file name that the Wasm binary was pushed with.
    pub title: Option<String>,
    /// What it runs, where that is known.
    pub program: Option<Inside>,
    /// Whether this node can run it.
    pub runs: Verdict,
}

/// The program of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inside {
    /// `sha256:…` of the Wasm binary.
    pub digest: String,
    /// Bytes of the Wasm binary.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// What it asks of its host, and offers.
    #[serde(flatten)]
    pub interface: Interface,
}

/// Whether an image can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// It was compiled for this node.
    pub here: bool,
    /// Why it was not.
    pub why: Option<String>,
}

/// An image that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is none.
    #[error(transparent)]
    LookUp(#[from] LookUpError),
    /// The store is at fault.
    #[error("read the image")]
    Store(#[from] StoreError),
}

impl Images {
    /// Looks into the image that is meant by a name or by the beginning of its digest. Its program is compiled if it was not
    /// before: only that tells whether it runs.
    ///
    /// # Errors
    /// [`InspectError`] when there is no such image or it cannot be read.
    pub async fn inspect(&self, name: &str) -> Result<Inspected, InspectError> {
        let record = self.0.look_up(name)?;
        let named = self.0.store.all_named();
        let hold = self.0.holds.hold(self.0.store.record_path(&record.digest));
        let stocked = stocked(&record, &named);
        let manifest = record.manifest.to_string();
        let own = named.iter().find(|name| name.digest == record.digest);
        let reference = match own {
            Some(own) => own.reference.clone(),
            None => return Err(LookUpError::Unknown { name: name.to_owned() }.into()),
        };
        let image = record.image(&reference, &self.0.store, hold);
        let (program, runs) = self.judge(&image).await?;
        let (config, title) = (image.config.clone(), image.title.clone());
        Ok(Inspected { stocked, manifest, config, title, program, runs })
    }

    async fn judge(&self, image: &Image) -> Result<(Option<Inside>, Verdict), StoreError> {
        let argv0 = image.argv(&[], &[]).into_iter().next().unwrap_or_default();
        let cwd = image.config.working_dir.clone().unwrap_or_else(|| "/".to_owned());
        let no = |error: &(dyn Error + 'static)| Verdict { here: false, why: Some(chain(error)) };
        let program = match self.program(image, &argv0, &cwd).await {
            Ok(program) => program,
            Err(error) => return Ok((None, no(&error))),
        };
        let mut inside = inside(&program).await?;
        let runs = match self.compile(image, &program).await {
            Ok(compiled) => {
                inside.kind = compiled.kind;
                Verdict { here: true, why: None }
            }
            Err(error) => no(&error),
        };
        Ok((Some(inside), runs))
    }
}

async fn inside(program: &Program) -> Result<Inside, StoreError> {
    let program = program.clone();
    blocking(move || {
        let read = std::fs::read(&program.wasm);
        let content = read.map_err(StoreError::on("read", &program.wasm))?;
        Ok(Inside {
            digest: program.digest,
            size: content.len() as u64,
            kind: program.kind,
            // What is malformed the compiler says in better words.
            interface: Interface::of(&content).unwrap_or_default(),
        })
    })
    .await
}

/// An error with its causes, each once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let mut told = BTreeSet::new();
    let words = causes.map(ToString::to_string).filter(|words| told.insert(words.clone()));
    words.collect::<Vec<_>>().join(": ")
}
