//! `nodule image push`

use anyhow::Result;
use nodule_image::Reference;

use super::cli::Push;
use super::docker;
use super::store;
use crate::local::{Place, keyring};
use crate::terminal::say;

/// Pushes, and prints the name by which it is there for good.
pub(super) async fn run(place: &Place, push: &Push) -> Result<()> {
    let reference = Reference::parse(&push.image)?;
    let mut images = store::config(place)?;
    if push.plain_http {
        images.plain_http.push(reference.registry().to_owned());
    }
    let keyring = keyring(&[docker::credentials(&reference).await?])?;
    let digest = nodule_image::push(&images, &reference, &push.file, &keyring).await?;
    say(&format!("{reference} {digest}\n"))
}
