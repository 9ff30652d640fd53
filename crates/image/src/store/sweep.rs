//! What of a store no image refers to, and how that is removed.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Store, StoreError, digest_of, entries, is_resumable, sync};
use crate::digest::Digest;
use crate::image::Record;
use crate::partial;

impl Store {
    /// Removes an image's names, and then its record: a name without a record means nothing.
    pub(crate) fn remove_record(&self, digest: &Digest) -> Result<(), StoreError> {
        for (path, _) in self.pointers().into_iter().filter(|(_, meant)| meant == digest) {
            partial::remove(&path)?;
        }
        partial::remove(&self.record_path(digest))?;
        sync(&self.root.join("images"))?;
        // Last of all: an image without its proofs would be everybody's.
        partial::remove(&self.proofs_path(digest))
    }

    /// Removes the proofs of an image that is not here: those of a pull that failed after them, or that a crash has left.
    pub(crate) fn forget(&self, image: &Digest) -> Result<(), StoreError> {
        match self.record_path(image).exists() {
            true => Ok(()),
            false => partial::remove(&self.proofs_path(image)),
        }
    }

    /// All that may be removed when nothing refers to it.
    pub(crate) fn content(&self) -> Vec<PathBuf> {
        let mut content = entries(&self.root.join("blobs/sha256"));
        content.extend(entries(&self.root.join("trees")));
        content.extend(entries(&self.root.join("programs")));
        for engine in entries(&self.compiled()) {
            content.extend(entries(&engine));
        }
        content
    }

    /// What the records refer to, by paths. A record whose content is not all here keeps what there is: a pull mends it.
    pub(crate) fn referred(&self) -> HashSet<PathBuf> {
        let mut referred = HashSet::new();
        let mut programs = HashSet::new();
        for record in self.all_records() {
            referred.extend(record.blobs.iter().map(|blob| self.blob(&blob.digest)));
            programs.extend(self.programs(&record));
            referred.extend(record.volume.map(|tree| self.tree(&tree)));
            referred
                .extend(record.tree.iter().flat_map(|chain| [self.tree(chain), self.notes(chain)]));
        }
        for engine in entries(&self.compiled()) {
            let files = |program: &Digest| {
                ["cwasm", "json"].map(|kind| engine.join(format!("{}.{kind}", program.hex())))
            };
            referred.extend(programs.iter().flat_map(files));
        }
        referred
    }

    /// Programs of an image whose compiled code is its own.
    fn programs(&self, record: &Record) -> Vec<Digest> {
        let layer = record.wasm.iter().map(|wasm| wasm.digest.clone());
        let found = record.tree.iter().flat_map(|chain| entries(&self.notes(chain)));
        layer.chain(found.filter_map(|note| digest_of(&note))).collect()
    }

    /// Where it is noted which programs were found in a tree.
    fn notes(&self, chain: &Digest) -> PathBuf {
        self.root.join("programs").join(chain.hex())
    }

    /// Whether one of these paths is of an image: below its files, or its compiled code, of whatever engine.
    pub(crate) fn is_of(&self, record: &Record, paths: &BTreeSet<PathBuf>) -> bool {
        let trees: Vec<_> =
            record.tree.iter().chain(&record.volume).map(|tree| self.tree(tree)).collect();
        let programs = self.programs(record);
        paths.iter().any(|path| {
            let is_code = path.starts_with(self.compiled())
                && digest_of(path).is_some_and(|program| programs.contains(&program));
            is_code || trees.iter().any(|tree| path.starts_with(tree))
        })
    }

    /// Removes one file or folder. A folder has no name any more before it is removed piece by piece.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        if !path.is_dir() {
            return partial::remove(path);
        }
        let scratch = self.scratch();
        fs::rename(path, &scratch).map_err(StoreError::on("rename", path))?;
        fs::remove_dir_all(&scratch).map_err(StoreError::on("remove", &scratch))
    }

    /// Removes downloads that nobody took up again for a long time.
    pub(crate) fn sweep_partials(&self) {
        for path in entries(&self.root.join("partial")) {
            let is_download = digest_of(&path).is_some();
            if is_download && !is_resumable(&path) {
                drop(fs::remove_file(path));
            }
        }
    }

    fn all_records(&self) -> Vec<Record> {
        let files = entries(&self.root.join("images"));
        files.iter().filter_map(|file| super::read_json(file)).collect()
    }

    /// The files of all names, with what they mean.
    fn pointers(&self) -> Vec<(PathBuf, Digest)> {
        let mut pointers = Vec::new();
        let mut folders = vec![self.root.join("refs")];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(pointer) = super::read_json::<super::Pointer>(&path) {
                    pointers.push((path, pointer.digest));
                }
            }
        }
        pointers
    }
}
