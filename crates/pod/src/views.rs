//! The views of all pods, for those who look at them from outside. Clones show the same pods.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::view::View;

/// By UID. The runner alone adds and removes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Views {
    views: Arc<RwLock<HashMap<String, watch::Receiver<View>>>>,
}

impl Views {
    /// All of them, with their UIDs.
    pub(crate) fn all(&self) -> Vec<(String, watch::Receiver<View>)> {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.iter().map(|(uid, view)| (uid.clone(), view.clone())).collect()
    }

    /// Each as it is now.
    pub(crate) fn now(&self) -> Vec<View> {
        self.all().into_iter().map(|(_, view)| view.borrow().clone()).collect()
    }

    pub(crate) fn insert(&self, uid: String, view: watch::Receiver<View>) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert(uid, view);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
