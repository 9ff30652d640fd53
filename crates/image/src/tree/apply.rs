//! What one layer does to the tree below it (image specification, "Applying Changesets").
//!
//! A layer hides files of the layers below, wherever in it that stands. So a layer above another is read twice: first for
//! what it hides, then for what it has.

use std::fs::File;
use std::io::{self, Read};

use super::Layer;
use super::archive::{Archive, Entry, Kind};
use super::error::{LayerError, shown};
use super::inflate::{Inflated, failure};
use super::name::{Meaning, Name, meaning};
use super::root::{New, Root};
use crate::Limits;

/// What the layers of one image may still bring.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    bytes: u64,
    entries: u64,
    most_bytes: u64,
    most_entries: u64,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        let (bytes, entries) = (limits.unpacked, limits.files);
        Self { bytes, entries, most_bytes: bytes, most_entries: entries }
    }

    fn take(&mut self, size: u64) -> Result<(), LayerError> {
        let too_large = LayerError::TooLarge { limit: self.most_bytes };
        self.bytes = self.bytes.checked_sub(size).ok_or(too_large)?;
        let too_many = LayerError::TooMany { limit: self.most_entries };
        self.entries = self.entries.checked_sub(1).ok_or(too_many)?;
        Ok(())
    }
}

/// Applies a layer; `is_above` another, or it is the first. Blocks.
pub(super) fn apply(
    root: &Root,
    layer: &Layer,
    is_above: bool,
    budget: &mut Budget,
) -> Result<(), LayerError> {
    if is_above {
        each(layer, &mut budget.clone(), |entry, _| hide(root, entry))?;
    }
    each(layer, budget, |entry, archive| make(root, entry, archive))
}

/// Goes through a layer's entries, and sees that it is the layer that the configuration names.
fn each(
    layer: &Layer,
    budget: &mut Budget,
    mut step: impl FnMut(&Entry, &mut Archive<Inflated<File>>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let blob = File::open(&layer.blob).and_then(Inflated::new).map_err(failure)?;
    let mut archive = Archive::new(blob);
    while let Some(entry) = archive.next()? {
        budget.take(entry.size)?;
        step(&entry, &mut archive)?;
    }
    let got = archive.into_inner().finish()?;
    match got == layer.diff {
        true => Ok(()),
        false => {
            let (expected, got) = (layer.diff.to_string(), got.to_string());
            Err(LayerError::WrongDiff { expected, got })
        }
    }
}

fn hide(root: &Root, entry: &Entry) -> Result<(), LayerError> {
    let hidden = match meaning(&entry.name)? {
        Meaning::Hide(name) => root.remove(&name),
        Meaning::HideAll(name) => root.clear(&name),
        Meaning::File(_) | Meaning::Nothing => Ok(()),
    };
    hidden.map_err(|error| LayerError::file(&entry.name, error))
}

fn make(
    root: &Root,
    entry: &Entry,
    archive: &mut Archive<Inflated<File>>,
) -> Result<(), LayerError> {
    let Meaning::File(name) = meaning(&entry.name)? else { return Ok(()) };
    let made = match &entry.kind {
        Kind::Folder => root.make_folder(&name),
        Kind::Symlink(target) => root.make_symlink(&name, target),
        Kind::HardLink(target) => return link(root, entry, &name, target),
        Kind::File => return file(root, entry, &name, archive),
        Kind::Device => {
            tracing::debug!(name = shown(&entry.name), "devices and pipes of images are left out");
            Ok(())
        }
    };
    made.map_err(|error| LayerError::file(&entry.name, error))
}

fn file(
    root: &Root,
    entry: &Entry,
    name: &Name,
    archive: &mut Archive<Inflated<File>>,
) -> Result<(), LayerError> {
    let mut content = Content { reader: archive.content(), error: None };
    let (size, is_program, modified) = (entry.size, entry.is_program, entry.modified);
    let made = root.make_file(name, &mut New { size, is_program, modified, content: &mut content });
    if let Some(error) = content.error {
        return Err(failure(error));
    }
    let count = made.map_err(|error| LayerError::file(&entry.name, error))?;
    archive.read(count);
    if count == size { Ok(()) } else { Err(LayerError::Truncated) }
}

fn link(root: &Root, entry: &Entry, name: &Name, target: &[u8]) -> Result<(), LayerError> {
    let missing = || LayerError::HardLink { name: shown(&entry.name), target: shown(target) };
    let to = Name::parse(target).map_err(|_| missing())?;
    root.make_link(name, &to).map_err(|error| {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        let is_missing = matches!(error.kind(), NotFound | IsADirectory | NotADirectory);
        if is_missing { missing() } else { LayerError::file(&entry.name, error) }
    })
}

/// Keeps errors of the layer apart from those of the disk that it is copied to.
struct Content<'r, R> {
    reader: &'r mut R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }
}
