//! Static pods: pods that a node has from a place of its own (the kubelet's `pkg/kubelet/config/common.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};

use crate::check::check;
use crate::defaults::fill;
use crate::document::{Document, Object};
use crate::error::Error;
use crate::refers::refers;

/// Where the pod came from: `file` or `http`.
const SOURCE: &str = "kubernetes.io/config.source";
/// What the manifest says, as a number; its mirror bears the same as `kubernetes.io/config.mirror`.
const HASH: &str = "kubernetes.io/config.hash";
/// When it was first seen.
const SEEN: &str = "kubernetes.io/config.seen";
/// The annotation of a static pod that names its manifest: the kubelet has none of the kind.
pub const MANIFEST: &str = "nodule.dev/config.manifest";

/// Where static pods come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `staticPodPath`.
    File,
    /// `staticPodURL`.
    Http,
}

impl Origin {
    /// The value of `kubernetes.io/config.source`.
    pub fn source(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
        }
    }

    /// What precedes the place in the number of a pod.
    fn prefix(self) -> &'static str {
        match self {
            Self::File => "file:",
            Self::Http => "url:",
        }
    }
}

/// Makes a static pod of node `node` of what `document` says. Its UID is a number over all that it says, its place and
/// the node: a changed manifest is another pod.
///
/// # Errors
/// It is no pod, makes no sense, or needs objects of the API.
pub fn static_pod(document: &Document, node: &str, origin: Origin) -> Result<Pod, Error> {
    let Object::Pod(pod) = &document.object else {
        return Err(document.error("only a Pod can be a static pod: remove it"));
    };
    let mut pod = Pod::clone(pod);
    let wrong = |(field, cause): (String, String)| document.error(cause).at(field);
    check(&pod).map_err(wrong)?;
    let uid = uid(&pod, node, &format!("{}{}", origin.prefix(), document.file));
    name(&mut pod, node);
    check(&pod).map_err(wrong)?;
    let spec = pod.spec.get_or_insert_default();
    if let Some(field) = refers(spec) {
        let cause =
            "a static pod cannot refer to objects of the API: write the value into the manifest";
        return Err(document.error(cause).at(field));
    }
    fill(spec);
    spec.node_name = Some(node.to_owned());
    tolerate(spec.tolerations.get_or_insert_default());
    let seen = Timestamp::now().to_string();
    let own = [(SOURCE, origin.source()), (HASH, &uid), (SEEN, &seen), (MANIFEST, &document.file)];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    pod.metadata.annotations.get_or_insert_default().extend(own);
    pod.metadata.uid = Some(uid);
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
    Ok(pod)
}

/// What only an API server gives is not taken from a file.
fn name(pod: &mut Pod, node: &str) {
    let meta = &mut pod.metadata;
    meta.name = meta.name.take().map(|name| format!("{name}-{node}"));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.resource_version = None;
    meta.generation = None;
    meta.managed_fields = None;
    meta.owner_references = None;
    meta.creation_timestamp = None;
}

/// No taint drives it off the node (`NoExecute`).
fn tolerate(tolerations: &mut Vec<Toleration>) {
    let all = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
}

/// 32 hex digits, as the kubelet's.
fn uid(pod: &Pod, node: &str, place: &str) -> String {
    let mut hash = Fnv128a::default();
    hash.write(format!("host:{node}").as_bytes());
    hash.write(place.as_bytes());
    // Maps are sorted by their keys, so that the order of a file does not count.
    let said = serde_json::to_value(pod).unwrap_or_default();
    hash.write(said.to_string().as_bytes());
    format!("{:032x}", hash.0)
}

/// FNV-1a of 128 bits (RFC 9923).
struct Fnv128a(u128);

impl Default for Fnv128a {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv128a {
    fn write(&mut self, bytes: &[u8]) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, uid: mine, labels: {a: b}}\nspec:\n  containers:\n  - {name: c, image: i}\n";

    fn made(file: &str, text: &str, node: &str) -> Result<Pod, Error> {
        static_pod(&read(file, text).unwrap()[0], node, Origin::File)
    }

    #[test]
    fn the_number_is_fnvs() {
        // The values of RFC 9923's test vectors for "" and "a".
        let mut hash = Fnv128a::default();
        assert_eq!(format!("{:032x}", hash.0), "6c62272e07bb014262b821756295c58d");
        hash.write(b"a");
        assert_eq!(format!("{:032x}", hash.0), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn a_static_pod_is_the_nodes() {
        let pod = made("/m/web.yaml", POD, "n1").unwrap();
        let meta = &pod.metadata;
        assert_eq!(
            (meta.name.as_deref(), meta.namespace.as_deref()),
            (Some("web-n1"), Some("default"))
        );
        let uid = meta.uid.clone().unwrap();
        assert_eq!(uid.len(), 32);
        let annotations = meta.annotations.clone().unwrap();
        assert_eq!((annotations[SOURCE].as_str(), &annotations[HASH]), ("file", &uid));
        assert_eq!(annotations[MANIFEST], "/m/web.yaml");
        annotations[SEEN].parse::<Timestamp>().unwrap();
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        let tolerations = spec.tolerations.unwrap();
        assert_eq!(tolerations[0].operator.as_deref(), Some("Exists"));
        assert_eq!(tolerations[0].effect.as_deref(), Some("NoExecute"));
    }

    #[test]
    fn the_uid_is_of_what_is_said_of_its_place_and_of_the_node() {
        let uid = |file: &str, text: &str, node: &str| made(file, text, node).unwrap().metadata.uid;
        let one = uid("f", POD, "n1");
        assert_eq!(one, uid("f", &format!("# the same\n{POD}"), "n1"));
        assert_ne!(one, uid("f", &POD.replace("image: i", "image: j"), "n1"));
        assert_ne!(one, uid("g", POD, "n1"));
        assert_ne!(one, uid("f", POD, "n2"));
    }

    #[test]
    fn what_cannot_be_a_static_pod_is_refused() {
        for (text, part) in [
            (POD.replace("name: web", "name: Web"), "document 1, field \"metadata.name\""),
            (POD.replace("spec:", "spec:\n  serviceAccountName: a"), "spec.serviceAccountName"),
            ("apiVersion: v1\nkind: ConfigMap\n".to_owned(), "only a Pod can be a static pod"),
        ] {
            let error = made("f", &text, "n1").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
