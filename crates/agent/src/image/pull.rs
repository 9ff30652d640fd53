//! `nodule image pull`

use anyhow::Result;
use nodule_image::Reference;

use super::cli::Pull;
use super::docker;
use super::message::{Ask, Told};
use super::progress::Progress;
use super::store::Store;
use crate::terminal::{say, size};

/// Pulls one after the other, and prints each image's digest.
pub(super) async fn run(store: &mut Store, pull: &Pull) -> Result<()> {
    for name in &pull.images {
        let credentials = docker::credentials(&Reference::parse(name)?).await?;
        let mut progress = Progress::new();
        let ask = Ask::Pull { name: name.clone(), credentials };
        let told = store.ask(ask, |downloads| progress.show(downloads)).await?;
        drop(progress);
        if let Told::Here(images) = told {
            for image in images {
                say(&format!("{} {} {}\n", image.name, image.digest, size(image.size)))?;
            }
        }
    }
    Ok(())
}
