//! Where things are: the checkout, the cache that outlives it, the programs that were built.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The checkout that this program was built from.
pub fn checkout() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// What is kept between runs: `$XDG_CACHE_HOME/nodule`, else `~/.cache/nodule`.
pub fn cache() -> Result<PathBuf> {
    if let Some(cache) = set("XDG_CACHE_HOME") {
        return Ok(cache.join("nodule"));
    }
    let home = set("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(home.join(".cache/nodule"))
}

/// The demo's folder: `$NODULE_DEMO`, else `demo` in the cache.
pub fn demo() -> Result<PathBuf> {
    match set("NODULE_DEMO") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(cache()?.join("demo")),
    }
}

/// The folder of the control plane that `just control-plane` handles: `$NODULE_CONTROL_PLANE`, else `control-plane` in the cache.
pub fn control_plane() -> Result<PathBuf> {
    match set("NODULE_CONTROL_PLANE") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(cache()?.join("control-plane")),
    }
}

/// A program of this workspace: in `$NODULE_BIN`, else beside this one (tests are one folder below the programs).
pub fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("the path of this program")?;
    let folders =
        set("NODULE_BIN").into_iter().chain(own.ancestors().skip(1).take(2).map(PathBuf::from));
    for folder in folders {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built: `e2e/just build` does")
}

/// A test guest: in `$NODULE_GUESTS`, else in `guests` of Cargo's target folder, in which this program lies.
pub fn guest(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("the path of this program")?;
    let targets = own.ancestors().skip(2).take(2).map(|folder| folder.join("guests"));
    let found = set("NODULE_GUESTS")
        .into_iter()
        .chain(targets)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("the guest {name} is not built: `e2e/just guests` does"))
}

pub(crate) fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
