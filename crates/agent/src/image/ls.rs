//! `nodule image ls`

use anyhow::{Context, Result};
use jiff::Timestamp;
use nodule_image::{Kind, Stocked};

use super::cli::Ls;
use super::message::{Ask, Told};
use super::store::Store;
use crate::local::Form;
use crate::terminal::{age, columns, say, size};

/// Digits of a digest that people compare.
const SHORT: usize = "sha256:".len() + 12;

pub(super) async fn run(store: &mut Store, ls: &Ls) -> Result<()> {
    let Told::Images(images) = store.ask(Ask::List, |_| Ok(())).await? else { return Ok(()) };
    match ls.output {
        Form::Table => say(&table(&images, Timestamp::now())),
        Form::Name => {
            say(&images.iter().flat_map(names).fold(String::new(), |all, name| all + name + "\n"))
        }
        Form::Json => {
            let text = serde_json::to_string_pretty(&images).context("write the list")?;
            say(&format!("{text}\n"))
        }
    }
}

/// How people call an image: by its tags, else by its digest.
fn names(image: &Stocked) -> Vec<&String> {
    if image.tags.is_empty() { vec![&image.digest] } else { image.tags.iter().collect() }
}

/// A row for each name.
fn table(images: &[Stocked], now: Timestamp) -> String {
    let mut rows = vec![["IMAGE", "DIGEST", "KIND", "SIZE", "AGE"].map(str::to_owned)];
    for image in images {
        let digest: String = image.digest.chars().take(SHORT).collect();
        let age = image.pulled.map(|pulled| age(now.duration_since(pulled))).unwrap_or_default();
        let untagged = || {
            let name = image.digests.first().and_then(|name| name.split('@').next());
            format!("{}@", name.unwrap_or_default())
        };
        let names = if image.tags.is_empty() { vec![untagged()] } else { image.tags.clone() };
        for name in names {
            rows.push([name, digest.clone(), kind(image), size(image.size), age.clone()]);
        }
    }
    columns(&rows)
}

fn kind(image: &Stocked) -> String {
    match image.kind {
        Some(Kind::Module) => "module".to_owned(),
        Some(Kind::Component | Kind::Proxy) => "component".to_owned(),
        None => "files".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_name() {
        let image = |tags: &[&str], kind: Option<&str>| -> Stocked {
            serde_json::from_value(json!({
                "digest": format!("sha256:{}", "a".repeat(64)), "tags": tags, "digests": ["localhost/x@sha256:aa"],
                "packaging": "artifact", "kind": kind, "size": 1_200_000, "pulled": "2026-01-01T00:00:00Z"}))
            .unwrap()
        };
        let images = [image(&["ex.io/a:1", "ex.io/a:22"], Some("module")), image(&[], None)];
        let text = table(&images, "2026-01-01T00:05:00Z".parse().unwrap());
        let expected = "\
IMAGE          DIGEST                KIND     SIZE    AGE
ex.io/a:1      sha256:aaaaaaaaaaaa   module   1.2MB   5m
ex.io/a:22     sha256:aaaaaaaaaaaa   module   1.2MB   5m
localhost/x@   sha256:aaaaaaaaaaaa   files    1.2MB   5m
";
        assert_eq!(text, expected);
    }
}
