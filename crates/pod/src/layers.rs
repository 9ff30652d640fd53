//! The layers of confinement that sandboxes say they lack: told once each, and to who shows the node's conditions.

use std::collections::BTreeSet;

use tokio::sync::watch;
use tracing::warn;

/// What may be missing: the names are a sandbox's word, and one of a guest that has escaped may be anything.
const KNOWN: [&str; 6] =
    ["cgroup", "landlock", "mount namespace", "seccomp", "user", "writable root"];

/// What was missing so far.
#[derive(Debug)]
pub(crate) struct Layers {
    missing: watch::Sender<BTreeSet<String>>,
}

impl Layers {
    pub(crate) fn new(missing: watch::Sender<BTreeSet<String>>) -> Self {
        Self { missing }
    }

    /// A sandbox lacks these.
    pub(crate) fn miss(&self, layers: &[String]) {
        for layer in layers.iter().filter(|layer| KNOWN.contains(&layer.as_str())) {
            let new = self.missing.send_if_modified(|missing| missing.insert(layer.clone()));
            if new {
                warn!(layer, "sandboxes are confined by less than they could be");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_told_once_and_nonsense_never() {
        let (sender, mut receiver) = watch::channel(BTreeSet::new());
        let layers = Layers::new(sender);
        layers.miss(&["user".to_owned(), "user\nand more".to_owned()]);
        assert_eq!(*receiver.borrow_and_update(), BTreeSet::from(["user".to_owned()]));
        layers.miss(&["user".to_owned()]);
        assert!(!receiver.has_changed().unwrap());
    }
}
