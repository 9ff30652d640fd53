//! `nodule image prune`

use anyhow::Result;

use super::cli::Prune;
use super::message::{Ask, Told};
use super::store::Store;
use crate::terminal::{say, size};

/// Removes, and prints what is gone.
pub(super) async fn run(store: &mut Store, prune: &Prune) -> Result<()> {
    let ask = Ask::Prune { tagged: prune.all };
    let Told::Images(gone) = store.ask(ask, |_| Ok(())).await? else { return Ok(()) };
    for image in &gone {
        let name = image.tags.first().or(image.digests.first()).unwrap_or(&image.digest);
        say(&format!("removed {name} ({})\n", size(image.size)))?;
    }
    let total = gone.iter().map(|image| image.size).sum();
    say(&format!("{} images, {}\n", gone.len(), size(total)))
}
