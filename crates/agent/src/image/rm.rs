//! `nodule image rm`

use anyhow::{Result, bail};

use super::cli::Rm;
use super::message::{Ask, Told};
use super::store::Store;
use crate::terminal::{say, size, warn};

/// Removes all that can be removed, and fails if one cannot.
pub(super) async fn run(store: &mut Store, rm: &Rm) -> Result<()> {
    let mut failed = 0;
    for name in &rm.images {
        let ask = Ask::Remove { name: name.clone() };
        match store.ask(ask, |_| Ok(())).await {
            Ok(Told::Removed(Some(image))) => {
                say(&format!("removed {name} ({}, {})\n", image.digest, size(image.size)))?;
            }
            Ok(_) => say(&format!("removed the name {name}; the image has others\n"))?,
            Err(error) if rm.images.len() == 1 => return Err(error),
            Err(error) => {
                warn(&format!("{error:#}"));
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} images are still there", rm.images.len());
    }
    Ok(())
}
