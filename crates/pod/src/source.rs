//! Where pods come from: the API server, static pods' places, and orders given by hand.
//!
//! A pod's source decides who ends it and who is told of it. It is kept with the pod, as the annotation
//! `kubernetes.io/config.source`, which a pod of the API server cannot bear here.

use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use nodule_manifest::Set;
use tokio::sync::{mpsc, watch};

/// The kubelet's `ConfigSourceAnnotationKey`.
const ANNOTATION: &str = "kubernetes.io/config.source";

/// What a node has its pods from.
#[derive(Default)]
pub struct Sources {
    /// The API server; none for a node that stands alone.
    pub cluster: Option<Clients>,
    /// The places of static pods.
    pub statics: Vec<Static>,
    /// Pods that are run and ended by hand.
    pub orders: Option<mpsc::Receiver<Order>>,
}

/// The API server. How often each of the two may ask it is the client's own matter, and whoever has one waits for nothing
/// but its answers.
#[derive(Clone)]
pub struct Clients {
    /// For pods and what they refer to.
    pub pods: kube::Client,
    /// For their Events.
    pub events: kube::Client,
}

/// A place of static pods.
pub struct Static {
    /// Its `kubernetes.io/config.source`: `file` or `http`.
    pub source: &'static str,
    /// All its pods; none before it was looked at.
    pub sets: watch::Receiver<Option<Set>>,
}

/// What is to be done with a pod that is run by hand. UIDs that are not known are passed over.
#[derive(Debug)]
pub enum Order {
    /// Run it: with a UID of its own, and with all defaults filled in.
    Run(Box<Pod>),
    /// End it within so many seconds, or its own grace period, and keep its logs.
    Stop {
        /// The pod's UID.
        uid: String,
        /// Seconds.
        grace: Option<u64>,
    },
    /// End it if it runs, and leave nothing of it.
    Remove {
        /// The pod's UID.
        uid: String,
        /// Seconds.
        grace: Option<u64>,
    },
}

/// Who wants a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The API server.
    Cluster,
    /// A place of static pods.
    Static(&'static str),
    /// Somebody at this machine.
    Hand,
}

/// The sources of static pods, configured or not.
pub(crate) const STATICS: [&str; 2] = ["file", "http"];
const HAND: &str = "hand";

impl Origin {
    pub(crate) fn of(pod: &Pod) -> Self {
        let annotations = pod.metadata.annotations.as_ref();
        let source = annotations.and_then(|all| all.get(ANNOTATION)).map(String::as_str);
        match STATICS.iter().find(|known| Some(**known) == source) {
            Some(known) => Self::Static(known),
            None if source == Some(HAND) => Self::Hand,
            None => Self::Cluster,
        }
    }

    /// Marks a pod as being of this source, whatever it says itself.
    pub(crate) fn mark(self, pod: &mut Pod) {
        let value = match self {
            Self::Cluster => {
                if let Some(annotations) = &mut pod.metadata.annotations {
                    annotations.remove(ANNOTATION);
                }
                return;
            }
            Self::Static(source) => source,
            Self::Hand => HAND,
        };
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), value.to_owned());
    }
}

/// News of a source other than the API server.
pub(crate) enum News {
    Set(&'static str, Set),
    Order(Order),
}

/// The news of all of them. Ends when no source is left.
pub(crate) fn news(
    statics: Vec<Static>,
    orders: Option<mpsc::Receiver<Order>>,
) -> SelectAll<BoxStream<'static, News>> {
    let mut all = SelectAll::new();
    for Static { source, sets } in statics {
        all.push(stream::unfold(sets, move |sets| next(source, sets)).boxed());
    }
    if let Some(orders) = orders {
        let next = |mut orders: mpsc::Receiver<Order>| async move {
            Some((News::Order(orders.recv().await?), orders))
        };
        all.push(stream::unfold(orders, next).boxed());
    }
    all
}

/// The newest set, if it has not been seen.
async fn next(
    source: &'static str,
    mut sets: watch::Receiver<Option<Set>>,
) -> Option<(News, watch::Receiver<Option<Set>>)> {
    // Not `changed` first: one may have been there before this looked.
    let set = loop {
        if sets.has_changed().ok()?
            && let Some(set) = sets.borrow_and_update().clone()
        {
            break set;
        }
        sets.changed().await.ok()?;
        sets.mark_changed();
    };
    Some((News::Set(source, set), sets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_node_says_where_a_pod_is_from() {
        for origin in [Origin::Static("file"), Origin::Static("http"), Origin::Hand] {
            let mut pod = Pod::default();
            origin.mark(&mut pod);
            assert_eq!(Origin::of(&pod), origin);
            Origin::Cluster.mark(&mut pod);
            assert_eq!(Origin::of(&pod), Origin::Cluster);
        }
    }

    #[tokio::test]
    async fn each_set_is_told_once_and_the_first_too() {
        let (sender, sets) = watch::channel(None);
        let mut news = news(vec![Static { source: "file", sets }], None);
        sender.send_replace(Some(Set::default()));
        assert!(matches!(news.next().await, Some(News::Set("file", _))));
        assert!(futures::poll!(news.next()).is_pending());
        drop(sender);
        assert!(news.next().await.is_none());
    }
}
