//! What was compiled on this node, each entry sealed: code that is handed out was compiled here and is whole.
//!
//! An entry is its code and its label, which is written first: code without one was never finished. A file that cannot be
//! read is an error, which may pass; only what was read and is wrong is removed. All work here blocks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::partial::remove;
use crate::seal::{Key, Label, Subject};
use crate::store::{Store, StoreError, entries};
use crate::wasm::Kind;

/// A label is not longer.
const LABEL: u64 = 4096;

/// The compiled code of one engine.
pub(crate) struct Cache {
    store: Arc<Store>,
    engine: String,
    key: Key,
    /// Entries whose seal was checked since this agent began, by program. Whoever has the program's turn writes it.
    sound: Mutex<HashMap<Digest, Label>>,
}

/// An entry that may be handed out.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) code: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
}

/// What is found in the place of an entry.
enum Found {
    Sound(Label),
    Nothing,
    /// And why.
    Spoilt(&'static str),
}

impl Cache {
    /// Opens the cache and drops the entries of other engines, which nothing here can use any more.
    pub(crate) fn open(store: Arc<Store>, engine: String) -> Result<Self, StoreError> {
        let key = Key::open(&store)?;
        for folder in entries(&store.compiled()) {
            if folder.file_name().is_none_or(|name| name != engine.as_str())
                && let Err(error) = fs::remove_dir_all(&folder)
            {
                tracing::warn!(%error, folder = %folder.display(), "old compiled code not removed");
            }
        }
        Ok(Self { store, engine, key, sound: Mutex::default() })
    }

    /// The entry of a program, checked if it was not before. What is spoilt is removed: none is there then.
    pub(crate) fn find(&self, program: &Digest) -> Result<Option<Entry>, StoreError> {
        let code = self.code(program);
        let known = self.sound().get(program).cloned();
        if let Some(label) = known
            && code.try_exists().map_err(StoreError::on("look for", &code))?
        {
            return Ok(Some(entry(code, &label)));
        }
        match self.look(program, &code)? {
            Found::Sound(label) => {
                self.sound().insert(program.clone(), label.clone());
                Ok(Some(entry(code, &label)))
            }
            Found::Nothing => Ok(None),
            Found::Spoilt(why) => {
                tracing::warn!(file = %code.display(), why, "compiled code thrown away");
                remove(&code)?;
                remove(&self.label(program))?;
                Ok(None)
            }
        }
    }

    fn look(&self, program: &Digest, code: &Path) -> Result<Found, StoreError> {
        if !code.try_exists().map_err(StoreError::on("look for", code))? {
            return Ok(Found::Nothing);
        }
        let Some(label) = read(&self.label(program))? else {
            return Ok(Found::Spoilt("it has no label"));
        };
        let Ok(label) = serde_json::from_slice::<Label>(&label) else {
            return Ok(Found::Spoilt("its label is damaged"));
        };
        Ok(match self.key.is_sound(self.subject(program), &label, code)? {
            true => Found::Sound(label),
            false => Found::Spoilt("it is not what was compiled and sealed here"),
        })
    }

    /// Takes in code that was just compiled.
    pub(crate) fn keep(
        &self,
        program: &Digest,
        kind: Kind,
        from: &Path,
    ) -> Result<Entry, StoreError> {
        let label = self.key.seal(self.subject(program), kind, from)?;
        let code = self.code(program);
        self.store.write_json(&self.label(program), &label)?;
        self.store.adopt(from, &code, 0o400)?;
        self.sound().insert(program.clone(), label.clone());
        Ok(entry(code, &label))
    }

    fn sound(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Label>> {
        self.sound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subject<'a>(&'a self, program: &'a Digest) -> Subject<'a> {
        Subject { engine: &self.engine, program }
    }

    fn code(&self, program: &Digest) -> PathBuf {
        self.folder().join(format!("{}.cwasm", program.hex()))
    }

    fn label(&self, program: &Digest) -> PathBuf {
        self.folder().join(format!("{}.json", program.hex()))
    }

    fn folder(&self) -> PathBuf {
        self.store.compiled().join(&self.engine)
    }
}

fn entry(code: PathBuf, label: &Label) -> Entry {
    Entry { code, kind: label.kind, size: label.size }
}

/// The beginning of a file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LABEL).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::on("read", path)(error)),
    }
}
