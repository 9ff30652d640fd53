//! What becomes a file in a volume: pure.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, PodCertificateProjection,
    ProjectedVolumeSource, SecretVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};
use nodule_volume::{Content, Files, Group};

use super::bundle::Bundles;
use super::certificate::{Certificates, Spot};
use super::token::{Tokens, Wish};
use crate::field::Downward;
use crate::objects::{Kind, Known, Object};

/// The API server's own default (`defaultMode`).
const MODE: u32 = 0o644;
/// A token's or a key's where its reader is known (the kubelet's `projected.go`).
const PRIVATE_MODE: u32 = 0o600;

/// All that files are made of.
pub(super) struct Projector<'a> {
    pub(super) downward: Downward<'a>,
    pub(super) known: &'a Known,
    pub(super) tokens: &'a Tokens,
    pub(super) bundles: &'a Bundles,
    pub(super) certificates: &'a Certificates,
    /// The pod's own user: it reads what modes keep from others.
    pub(super) user: Option<u32>,
    pub(super) group: Option<Group>,
}

type Projected = Result<Files, String>;

impl Projector<'_> {
    pub(super) fn config_map(&self, source: &ConfigMapVolumeSource) -> Projected {
        let of = Part { kind: Kind::ConfigMap, name: &source.name, optional: source.optional };
        self.object(&of, source.items.as_ref(), source.default_mode)
    }

    pub(super) fn secret(&self, source: &SecretVolumeSource) -> Projected {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let of = Part { kind: Kind::Secret, name, optional: source.optional };
        self.object(&of, source.items.as_ref(), source.default_mode)
    }

    /// Of two files of one path the later is taken.
    pub(super) fn projected(&self, volume: &str, source: &ProjectedVolumeSource) -> Projected {
        let mut files = Files::new();
        for (index, part) in source.sources.iter().flatten().enumerate() {
            let mode = source.default_mode;
            files.extend(match &part.pod_certificate {
                Some(certificate) => {
                    let spot = Spot { volume: volume.to_owned(), index };
                    self.certificate(&spot, certificate, mode)?
                }
                None => self.part(part, mode)?,
            });
        }
        Ok(files)
    }

    fn part(&self, part: &VolumeProjection, mode: Option<i32>) -> Projected {
        if let Some(map) = &part.config_map {
            let of = Part { kind: Kind::ConfigMap, name: &map.name, optional: map.optional };
            return self.object(&of, map.items.as_ref(), mode);
        }
        if let Some(secret) = &part.secret {
            let of = Part { kind: Kind::Secret, name: &secret.name, optional: secret.optional };
            return self.object(&of, secret.items.as_ref(), mode);
        }
        if let Some(fields) = &part.downward_api {
            return self.fields(fields.items.as_ref(), mode);
        }
        if let Some(token) = &part.service_account_token {
            return self.token(token, mode);
        }
        if let Some(bundle) = &part.cluster_trust_bundle {
            let pem = self.bundles.find(bundle)?;
            return Ok(self.file(&bundle.path, pem.into_bytes(), bits(mode)));
        }
        Ok(Files::new())
    }

    fn object(
        &self,
        of: &Part<'_>,
        items: Option<&Vec<KeyToPath>>,
        mode: Option<i32>,
    ) -> Projected {
        let namespace = self.downward.pod.metadata.namespace.as_deref().unwrap_or_default();
        let found = self.known.find_optional(namespace, of.kind, of.name, of.optional);
        let Some(object) = found.map_err(|lack| lack.to_string())? else { return Ok(Files::new()) };
        let mut files = Files::new();
        let items = items.filter(|items| !items.is_empty());
        let Some(items) = items else {
            for (key, data) in object.data.iter().chain(&object.binary) {
                files.extend(self.file(key, data.clone(), bits(mode)));
            }
            return Ok(files);
        };
        for item in items {
            match data(&object, &item.key) {
                Some(data) => {
                    files.extend(self.file(&item.path, data.clone(), bits(item.mode.or(mode))));
                }
                None if of.optional == Some(true) => {}
                None => return Err(of.lacks(&item.key)),
            }
        }
        Ok(files)
    }

    /// The downward API.
    pub(super) fn fields(
        &self,
        items: Option<&Vec<DownwardAPIVolumeFile>>,
        mode: Option<i32>,
    ) -> Projected {
        let mut files = Files::new();
        for item in items.into_iter().flatten() {
            let value = if let Some(field) = &item.field_ref {
                let path = &field.field_path;
                self.downward.file(path).ok_or(format!("unsupported fieldPath: {path}"))?
            } else if let Some(resource) = &item.resource_field_ref {
                self.downward.resource(resource, None)?
            } else {
                continue;
            };
            files.extend(self.file(&item.path, value.into_bytes(), bits(item.mode.or(mode))));
        }
        Ok(files)
    }

    fn token(&self, source: &ServiceAccountTokenProjection, mode: Option<i32>) -> Projected {
        let token = self.tokens.find(&Wish::of(source))?;
        Ok(self.private(&source.path, token, mode))
    }

    fn certificate(
        &self,
        spot: &Spot,
        source: &PodCertificateProjection,
        mode: Option<i32>,
    ) -> Projected {
        let issued = self.certificates.find(spot).map_err(|lack| lack.why)?;
        let bundle = format!("{}{}", issued.key, issued.chain);
        let all = [
            (&source.credential_bundle_path, &bundle),
            (&source.key_path, &issued.key),
            (&source.certificate_chain_path, &issued.chain),
        ];
        let named = all.into_iter().filter_map(|(path, text)| {
            Some((path.as_deref().filter(|path| !path.is_empty())?, text))
        });
        Ok(named.flat_map(|(path, text)| self.private(path, text, mode)).collect())
    }

    /// What is for its reader alone, where that one is known.
    fn private(&self, path: &str, text: &str, mode: Option<i32>) -> Files {
        let reader = reader(self.downward.pod);
        let known = reader.is_some() || self.group.is_some();
        let mode = if known { PRIVATE_MODE } else { bits(mode) };
        let mut files = self.file(path, text.as_bytes().to_vec(), mode);
        if let Some(reader) = reader.filter(|_| self.user.is_some()) {
            files.values_mut().for_each(|file| file.user = Some(reader));
        }
        files
    }

    fn file(&self, path: &str, data: Vec<u8>, mode: u32) -> Files {
        Files::from([(path.to_owned(), Content { data, mode, user: self.user })])
    }
}

/// Which object files are made of.
struct Part<'a> {
    kind: Kind,
    name: &'a str,
    optional: Option<bool>,
}

impl Part<'_> {
    /// The kubelet's words.
    fn lacks(&self, key: &str) -> String {
        match self.kind {
            Kind::ConfigMap => format!("configmap references non-existent config key: {key}"),
            Kind::Secret => format!("references non-existent secret key: {key}"),
        }
    }
}

fn data<'a>(object: &'a Object, key: &str) -> Option<&'a Vec<u8>> {
    object.data.get(key).or_else(|| object.binary.get(key))
}

fn bits(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).map_or(MODE, |mode| mode & 0o777)
}

/// The one user that all of the pod's containers are told to be (the kubelet's `FsUserFrom`).
fn reader(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.map(|container| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    u32::try_from(first).ok().filter(|_| same)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::objects::{Answer, Key};

    fn known() -> Known {
        let key = |kind, name: &str| Key { kind, namespace: "n".into(), name: name.into() };
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
            list.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
        };
        let object =
            |data, binary| Answer::Found(Arc::new(Object { data, binary, ..Object::default() }));
        Known {
            answers: BTreeMap::from([
                (
                    key(Kind::ConfigMap, "map"),
                    object(map(&[("a", "1"), ("b", "2")]), map(&[("c", "3")])),
                ),
                (key(Kind::Secret, "key"), object(map(&[("a", "s")]), BTreeMap::new())),
                (key(Kind::ConfigMap, "gone"), Answer::Absent),
            ]),
        }
    }

    /// What a projected volume of these sources holds in a pod with this security context.
    fn projected(sources: &Value, context: &Value, own: Option<u32>) -> Projected {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"x": "y"}},
            "spec": {"securityContext": context, "containers": [
                {"name": "c", "resources": {"limits": {"memory": "1Mi"}}}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let source = json!({"defaultMode": 0o440, "sources": sources});
        let source: ProjectedVolumeSource = serde_json::from_value(source).unwrap();
        let allocatable = BTreeMap::new();
        let group = context["fsGroup"].as_u64().map(|id| Group { id: u32::try_from(id).unwrap() });
        let spot = Spot { volume: "v".to_owned(), index: 1 };
        let projector = Projector {
            downward: Downward { pod: &pod, node: "n1", addresses: &[], allocatable: &allocatable },
            known: &known(),
            tokens: &Tokens::with("api", "the token"),
            bundles: &Bundles::default(),
            certificates: &Certificates::with(spot, "the key\n", "the chain\n"),
            user: own,
            group,
        };
        projector.projected("v", &source)
    }

    fn shown(files: &Files) -> Vec<String> {
        let line = |(path, file): (&String, &Content)| {
            format!("{path} {:o} {}", file.mode, String::from_utf8_lossy(&file.data))
        };
        files.iter().map(line).collect()
    }

    #[test]
    fn all_keys_or_those_that_are_named_become_files_with_their_modes() {
        let sources = json!([
            {"configMap": {"name": "map"}},
            {"secret": {"name": "key", "items": [{"key": "a", "path": "deep/a", "mode": 0o400}]}},
            {"configMap": {"name": "gone", "optional": true}},
            {"configMap": {"name": "map", "optional": true, "items": [{"key": "none", "path": "x"}]}},
            {"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory"}}]}},
        ]);
        let files = projected(&sources, &json!({}), Some(7)).unwrap();
        let wanted = [
            "a 440 1",
            "b 440 2",
            "c 440 3",
            "deep/a 400 s",
            "labels 440 x=\"y\"",
            "memory 440 1048576",
        ];
        assert_eq!(shown(&files), wanted);
        assert!(files.values().all(|file| file.user == Some(7)));
    }

    #[test]
    fn what_is_missing_is_told_in_the_kubelets_words() {
        for (source, message) in [
            (json!({"configMap": {"name": "gone"}}), "configmap \"gone\" not found"),
            (
                json!({"configMap": {"name": "map", "items": [{"key": "k", "path": "p"}]}}),
                "configmap references non-existent config key: k",
            ),
            (
                json!({"secret": {"name": "key", "items": [{"key": "k", "path": "p"}]}}),
                "references non-existent secret key: k",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.x"}}]}}),
                "unsupported fieldPath: spec.x",
            ),
        ] {
            assert_eq!(projected(&json!([source]), &json!({}), None).unwrap_err(), message);
        }
    }

    #[test]
    fn a_token_is_for_its_readers_alone_where_they_are_known() {
        let sources = json!([{"serviceAccountToken": {"path": "token", "audience": "api"}}]);
        for (context, own, mode, user) in [
            (json!({}), Some(7), 0o440, Some(7)),
            (json!({}), None, 0o440, None),
            (json!({"runAsUser": 9}), Some(7), 0o600, Some(9)),
            (json!({"fsGroup": 8}), Some(7), 0o600, Some(7)),
        ] {
            let files = projected(&sources, &context, own).unwrap();
            let token = &files["token"];
            assert_eq!((token.mode, token.user), (mode, user), "{context}");
            assert_eq!(token.data, b"the token");
        }
        let other = json!([{"serviceAccountToken": {"path": "token", "audience": "other"}}]);
        let error = projected(&other, &json!({}), None).unwrap_err();
        assert!(error.starts_with("failed to fetch token"), "{error}");
    }

    #[test]
    fn a_certificate_and_its_key_are_in_the_files_that_are_named_and_private() {
        let at = |paths: Value| {
            let mut source = json!({"signerName": "example.com/s", "keyType": "ED25519"});
            source.as_object_mut().unwrap().extend(paths.as_object().unwrap().clone());
            json!([{"configMap": {"name": "map", "items": []}}, {"podCertificate": source}])
        };
        let all = at(json!({"credentialBundlePath": "deep/bundle", "keyPath": "key",
                            "certificateChainPath": "chain"}));
        for (context, own, mode, user) in [
            (json!({}), Some(7), "440", Some(7)),
            (json!({"runAsUser": 9}), Some(7), "600", Some(9)),
            (json!({"fsGroup": 8}), None, "600", None),
        ] {
            let mut files = projected(&all, &context, own).unwrap();
            files.retain(|path, _| !["a", "b", "c"].contains(&path.as_str()));
            let wanted = [
                format!("chain {mode} the chain\n"),
                format!("deep/bundle {mode} the key\nthe chain\n"),
                format!("key {mode} the key\n"),
            ];
            assert_eq!(shown(&files), wanted, "{context}");
            assert!(files.values().all(|file| file.user == user), "{context}");
        }
        let one =
            projected(&at(json!({"keyPath": "k", "certificateChainPath": ""})), &json!({}), None);
        assert!(one.unwrap().keys().eq(["a", "b", "c", "k"]));
        let mut elsewhere = all;
        elsewhere.as_array_mut().unwrap().remove(0);
        let why = projected(&elsewhere, &json!({}), None).unwrap_err();
        assert_eq!(why, "credential bundle is not issued yet");
    }
}
