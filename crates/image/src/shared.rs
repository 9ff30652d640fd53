//! What all who are at the same thing have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A value for each key, as long as somebody has it.
pub(crate) struct Shared<T>(Mutex<HashMap<String, Weak<T>>>);

impl<T> Shared<T> {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<T>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).and_then(Weak::upgrade)
    }

    /// The value of a key: what `make` gives, if nobody has one.
    pub(crate) fn join(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| one.strong_count() > 0);
        if let Some(one) = all.get(key).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::new(make());
        all.insert(key.to_owned(), Arc::downgrade(&one));
        one
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
