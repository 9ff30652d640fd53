//! Mirror pods: what the API server shows of static pods. The node makes them, keeps them like their pods, and takes them
//! away; nobody who deletes one stops its pod.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// The kubelet's `ConfigMirrorAnnotationKey`: the hash of the pod that is mirrored.
const ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Waits between two tries, doubling.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Namespace and name.
pub(crate) type Name = (String, String);

/// Static pods, and the mirrors that the API server has. Written by the runner alone.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    /// The owner of mirrors, once it is registered.
    pub(crate) node: Option<Arc<Node>>,
    /// Whether `seen` is all that there is.
    pub(crate) synced: bool,
    /// The static pods of which something is left.
    pub(crate) pods: BTreeMap<Name, Mirrored>,
    /// The mirrors.
    pub(crate) seen: BTreeMap<Name, Arc<Pod>>,
}

/// A static pod.
#[derive(Debug)]
pub(crate) struct Mirrored {
    pub(crate) pod: Arc<Pod>,
    /// It is not wanted any more: its mirror stays until nothing is left of it.
    pub(crate) ending: bool,
}

pub(crate) fn name(pod: &Pod) -> Name {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    (part(&pod.metadata.namespace), part(&pod.metadata.name))
}

/// Whether a pod of the API server is a mirror.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    mirrored(pod).is_some()
}

fn mirrored(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(ANNOTATION).map(String::as_str)
}

impl Mirrors {
    /// The mirror that shows the static pod of this name and UID, if there is one.
    pub(crate) fn of(&self, name: &Name, uid: &str) -> Option<&Arc<Pod>> {
        self.seen.get(name).filter(|mirror| is_of(mirror, uid))
    }

    /// What is to be done, once all mirrors are known.
    fn plan(&self) -> Vec<Action> {
        let Some(node) = self.node.as_ref().filter(|_| self.synced) else { return Vec::new() };
        let missing = self
            .pods
            .iter()
            .filter(|(name, mirrored)| !mirrored.ending && !self.seen.contains_key(*name));
        let make =
            missing.map(|(_, mirrored)| Action::Create(Box::new(mirror(&mirrored.pod, node))));
        let wrong = self.seen.iter().filter(|(name, mirror)| match self.pods.get(*name) {
            Some(Mirrored { ending: true, .. }) => false,
            Some(Mirrored { pod, .. }) => {
                !is_of(mirror, pod.metadata.uid.as_deref().unwrap_or_default())
            }
            None => true,
        });
        make.chain(wrong.map(|(_, mirror)| Action::Delete(Arc::clone(mirror)))).collect()
    }
}

/// Whether it shows that pod, and nobody has deleted it.
fn is_of(mirror: &Pod, uid: &str) -> bool {
    mirrored(mirror) == Some(uid) && mirror.metadata.deletion_timestamp.is_none()
}

enum Action {
    Create(Box<Pod>),
    Delete(Arc<Pod>),
}

/// What NodeRestriction lets a node create: its own, with exactly one owner, which is the Node.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let meta = &pod.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.insert(ANNOTATION.to_owned(), meta.uid.clone().unwrap_or_default());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    Pod {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: meta.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    }
}

/// Keeps the mirrors like the static pods. Never ends.
pub(crate) async fn keep(client: kube::Client, mut mirrors: watch::Receiver<Mirrors>) {
    let mut wait = FIRST_WAIT;
    loop {
        let plan = mirrors.borrow_and_update().plan();
        let mut failed = false;
        for action in plan {
            failed |= !act(&client, action).await;
        }
        if failed {
            sleep(wait.mul_f64(rand::random_range(0.75..1.25))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        } else {
            wait = FIRST_WAIT;
            if mirrors.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Whether it is done. The watch tells of what there is then.
async fn act(client: &kube::Client, action: Action) -> bool {
    let (pod, done, result) = match action {
        Action::Create(pod) => {
            let api = api(client, &pod);
            let created = api.create(&PostParams::default(), &pod).await.map(|_| ());
            (Arc::from(pod), "mirror pod made", created)
        }
        Action::Delete(pod) => {
            let deleted = api(client, &pod).delete(&name(&pod).1, &at_once(&pod)).await;
            (pod, "mirror pod removed", deleted.map(|_| ()))
        }
    };
    let (namespace, name) = name(&pod);
    match result {
        Ok(()) => info!(namespace, name, "{done}"),
        // There already, gone already, or another one by now: the watch will say.
        Err(kube::Error::Api(status))
            if matches!(status.code, 404 | 409) && !is_other(&status.message) =>
        {
            debug!(namespace, name, status.message, "mirror pod is not as it was");
        }
        Err(error) => {
            let refused = matches!(&error, kube::Error::Api(status) if status.code < 500);
            let error = &error as &dyn std::error::Error;
            if refused {
                warn!(error, namespace, name, "mirror pod refused: tried again");
            } else {
                debug!(error, namespace, name, "the API server does not answer: tried again");
            }
            return false;
        }
    }
    true
}

/// A namespace that is not there, or is going, refuses its pods by these codes, too.
fn is_other(message: &str) -> bool {
    message.contains("namespaces ") || message.contains("namespace ")
}

fn api(client: &kube::Client, pod: &Pod) -> Api<Pod> {
    Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
}

/// Of this very object, without a grace period: nothing runs for it.
fn at_once(pod: &Pod) -> DeleteParams {
    DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn pod(name: &str, uid: &str) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    fn mirror_of(name: &str, hash: &str, deleted: bool) -> Arc<Pod> {
        let mut pod = Pod::clone(&pod(name, &format!("mirror-of-{hash}")));
        pod.metadata.annotations = Some(BTreeMap::from([(ANNOTATION.to_owned(), hash.to_owned())]));
        pod.metadata.deletion_timestamp = deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH));
        Arc::new(pod)
    }

    fn plan(mirrors: &Mirrors) -> Vec<String> {
        let word = |action: &Action| match action {
            Action::Create(pod) => format!("create {}", mirrored(pod).unwrap()),
            Action::Delete(pod) => format!("delete {}", pod.metadata.uid.clone().unwrap()),
        };
        mirrors.plan().iter().map(word).collect()
    }

    #[test]
    fn mirrors_are_made_kept_and_removed_as_their_pods_ask() {
        // The pod's UID and whether it ends; the mirror's hash and whether it was deleted; what follows.
        type Case =
            (Option<(&'static str, bool)>, Option<(&'static str, bool)>, &'static [&'static str]);
        let table: [Case; 8] = [
            (Some(("u1", false)), None, &["create u1"]),
            (Some(("u1", false)), Some(("u1", false)), &[]),
            (Some(("u1", false)), Some(("u1", true)), &["delete mirror-of-u1"]),
            (Some(("u2", false)), Some(("u1", false)), &["delete mirror-of-u1"]),
            (Some(("u1", true)), Some(("u1", false)), &[]),
            (Some(("u1", true)), None, &[]),
            (None, Some(("u1", false)), &["delete mirror-of-u1"]),
            (None, None, &[]),
        ];
        for (static_pod, mirror, expected) in table {
            let mut mirrors = Mirrors { node: Some(Arc::default()), ..Mirrors::default() };
            let key = || ("default".to_owned(), "a".to_owned());
            if let Some((uid, ending)) = static_pod {
                mirrors.pods.insert(key(), Mirrored { pod: pod("a", uid), ending });
            }
            if let Some((hash, deleted)) = mirror {
                mirrors.seen.insert(key(), mirror_of("a", hash, deleted));
            }
            assert_eq!(plan(&mirrors), Vec::<String>::new(), "before all are known");
            mirrors.synced = true;
            assert_eq!(plan(&mirrors), expected, "{static_pod:?} {mirror:?}");
        }
    }

    #[test]
    fn a_mirror_is_what_node_restriction_lets_through() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".to_owned());
        node.metadata.uid = Some("node-uid".to_owned());
        let made = mirror(&pod("a", "u1"), &node);
        assert_eq!((made.metadata.uid.clone(), mirrored(&made)), (None, Some("u1")));
        let owners = serde_json::to_value(made.metadata.owner_references).unwrap();
        let owner = serde_json::json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid", "controller": true}]);
        assert_eq!(owners, owner);
    }
}
