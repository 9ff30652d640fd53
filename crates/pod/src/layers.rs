//! The layers of confinement that sandboxes say they lack: told once each, and to who shows the node's conditions.

use std::collections::BTreeSet;

use tokio::sync::watch;
use tracing::warn;

/// The most layers that are remembered, and the longest name of one in bytes: they are a sandbox's word.
const MOST: usize = 16;
const LONGEST: usize = 64;

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
        for layer in layers {
            let new = self.missing.send_if_modified(|missing| {
                missing.len() < MOST && layer.len() <= LONGEST && missing.insert(layer.clone())
            });
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
    fn a_layer_is_told_once_and_nonsense_is_bounded() {
        let (sender, mut receiver) = watch::channel(BTreeSet::new());
        let layers = Layers::new(sender);
        layers.miss(&["user".to_owned(), "x".repeat(LONGEST + 1)]);
        assert_eq!(*receiver.borrow_and_update(), BTreeSet::from(["user".to_owned()]));
        layers.miss(&["user".to_owned()]);
        assert!(!receiver.has_changed().unwrap());
        let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        layers.miss(&many);
        assert_eq!(receiver.borrow().len(), MOST);
    }
}
