//! `nodule image import`

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::cli::Import;
use super::message::{Ask, Told};
use super::store::Store;
use crate::terminal::{say, size};

/// Takes up one after the other, and prints the name of each image.
pub(super) async fn run(store: &mut Store, import: &Import) -> Result<()> {
    ensure!(
        import.name.is_none() || import.files.len() == 1,
        "--name is the name of one image: import the files one by one"
    );
    for file in &import.files {
        let spool = if file == Path::new("-") { Some(Spool::fill(store)?) } else { None };
        let path = spool.as_ref().map_or(file, |spool| &spool.0);
        let path = std::path::absolute(path).context("find the current folder")?;
        let ask = Ask::Load { path, name: import.name.clone() };
        if let Told::Here(images) = store.ask(ask, |_| Ok(())).await? {
            for image in images {
                say(&format!("{} {} {}\n", image.name, image.digest, size(image.size)))?;
            }
        }
    }
    Ok(())
}

/// What came by standard input, in a file that the owner of the store can read.
struct Spool(PathBuf);

impl Spool {
    fn fill(store: &Store) -> Result<Self> {
        let root = &store.place().root;
        let path = root.join(format!("stdin-{:016x}", rand::random::<u64>()));
        let place = || format!("write {}", path.display());
        fs::create_dir_all(root).with_context(place)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.with_context(place)?;
        let spool = Self(path.clone());
        io::copy(&mut io::stdin(), &mut file).with_context(place)?;
        Ok(spool)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // It is of no use to anybody.
        let _ = fs::remove_file(&self.0);
    }
}
