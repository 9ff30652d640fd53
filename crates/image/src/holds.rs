//! What must not be removed now: content that a pull is about to refer to, and images that somebody has in hand.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Keeps one file or folder of the store, until dropped. Clones keep it too.
#[derive(Clone)]
pub(crate) struct Hold(Arc<PathBuf>);

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0).finish()
    }
}

/// All that is held, by path. Whoever removes has its lock, and so has whoever makes a new reference.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Held>);

#[derive(Default)]
struct Held {
    paths: HashMap<PathBuf, Weak<PathBuf>>,
    /// How many references were made: what was looked up before another one may be out of date.
    made: u64,
}

/// What was said of references while nobody made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Holds {
    /// Keeps what is at `path`, or will be. To be called before it is looked for.
    pub(crate) fn hold(&self, path: PathBuf) -> Hold {
        let mut held = self.held();
        held.paths.retain(|_, path| path.strong_count() > 0);
        if let Some(hold) = held.paths.get(&path).and_then(Weak::upgrade) {
            return Hold(hold);
        }
        let hold = Arc::new(path.clone());
        held.paths.insert(path, Arc::downgrade(&hold));
        Hold(hold)
    }

    /// Notes that a reference was written. To be called before what it refers to is let go.
    pub(crate) fn refer(&self) {
        self.held().made += 1;
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen(self.held().made)
    }

    /// Removes what is at `path`, unless it is held or there are new references since `seen`.
    pub(crate) fn remove<T>(
        &self,
        path: &Path,
        seen: Option<Seen>,
        remove: impl FnOnce() -> T,
    ) -> Option<T> {
        let held = self.held();
        let is_held = held.paths.get(path).is_some_and(|path| path.strong_count() > 0);
        let is_old = seen.is_some_and(|seen| seen != Seen(held.made));
        (!is_held && !is_old).then(remove)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_or_newly_referred_to_is_not_removed() {
        let (holds, path) = (Holds::default(), PathBuf::from("a"));
        let removed = |seen| holds.remove(&path, seen, || ()).is_some();
        let first = holds.hold(path.clone());
        let second = first.clone();
        drop(first);
        assert!(!removed(None));
        drop(second);
        let seen = holds.seen();
        assert!(removed(Some(seen)));
        holds.refer();
        assert!(!removed(Some(seen)) && removed(None) && removed(Some(holds.seen())));
    }
}
