//! What a pod refers to, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::select_all;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource, Pod, Volume};
use tokio::sync::watch;

use super::{Answer, Key, Kind, Object, Objects};

/// The objects that a pod refers to. Owned by its worker; dropped, it follows none.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    answers: BTreeMap<Key, watch::Receiver<Answer>>,
}

impl Follow {
    /// Follows these and no others.
    pub(crate) fn only(&mut self, keys: &BTreeSet<Key>, objects: &Objects) {
        self.answers.retain(|key, _| keys.contains(key));
        for key in keys {
            if !self.answers.contains_key(key) {
                self.answers.insert(key.clone(), objects.follow(key));
            }
        }
    }

    /// What is known now. What `changed` waits for is news to this.
    pub(crate) fn known(&mut self) -> Known {
        let answers = self.answers.iter_mut();
        Known {
            answers: answers
                .map(|(key, answer)| (key.clone(), answer.borrow_and_update().clone()))
                .collect(),
        }
    }

    /// Waits until something else is known. May be dropped: nothing is lost.
    pub(crate) async fn changed(&mut self) {
        let all: Vec<_> =
            self.answers.values_mut().map(|answer| Box::pin(answer.changed())).collect();
        // A slot outlives its readers; an agent whose keeper is gone ends.
        if all.is_empty() || select_all(all).await.0.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What was known at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) answers: BTreeMap<Key, Answer>,
}

/// Why there is no object to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lack {
    /// The API server has not answered yet: who waits is told.
    #[error("{} \"{name}\" is not read yet", kind.word())]
    Unknown { kind: Kind, name: String },
    /// The kubelet's words.
    #[error("{} \"{name}\" not found", kind.word())]
    Absent { kind: Kind, name: String },
    /// The API server's words.
    #[error("{0}")]
    Refused(String),
}

impl Known {
    /// The object of this name in the pod's namespace.
    pub(crate) fn find(
        &self,
        namespace: &str,
        kind: Kind,
        name: &str,
    ) -> Result<Arc<Object>, Lack> {
        let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let name = name.to_owned();
        match self.answers.get(&key) {
            Some(Answer::Found(object)) => Ok(Arc::clone(object)),
            Some(Answer::Absent) => Err(Lack::Absent { kind, name }),
            Some(Answer::Refused(why)) => Err(Lack::Refused(why.clone())),
            Some(Answer::Unknown) | None => Err(Lack::Unknown { kind, name }),
        }
    }

    /// None where the object need not be there and is not.
    pub(crate) fn find_optional(
        &self,
        namespace: &str,
        kind: Kind,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<Arc<Object>>, Lack> {
        match self.find(namespace, kind, name) {
            Err(Lack::Absent { .. }) if optional == Some(true) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// All that a pod refers to in its spec.
pub(crate) fn references(pod: &Pod) -> BTreeSet<Key> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let containers = containers.map(|container| (&container.env, &container.env_from));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|container| (&container.env, &container.env_from));
    let all = containers.chain(ephemeral);
    let mut named: Vec<_> = all.flat_map(|(env, from)| of_environment(env, from)).collect();
    named.extend(spec.volumes.iter().flatten().flat_map(of_volume));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let named = named.into_iter().filter(|(_, name)| !name.is_empty());
    named
        .map(|(kind, name)| Key { kind, namespace: namespace.to_owned(), name: name.to_owned() })
        .collect()
}

fn of_environment<'a>(
    env: &'a Option<Vec<EnvVar>>,
    from: &'a Option<Vec<EnvFromSource>>,
) -> Vec<(Kind, &'a str)> {
    let sources = from.iter().flatten().flat_map(|from| {
        let map = from.config_map_ref.as_ref().map(|map| (Kind::ConfigMap, map.name.as_str()));
        let secret = from.secret_ref.as_ref().map(|it| (Kind::Secret, it.name.as_str()));
        map.into_iter().chain(secret)
    });
    let values = env.iter().flatten().filter_map(|env| env.value_from.as_ref());
    sources.chain(values.flat_map(of_value)).collect()
}

fn of_value(from: &EnvVarSource) -> Vec<(Kind, &str)> {
    let map = from.config_map_key_ref.as_ref().map(|map| (Kind::ConfigMap, map.name.as_str()));
    let secret = from.secret_key_ref.as_ref().map(|it| (Kind::Secret, it.name.as_str()));
    map.into_iter().chain(secret).collect()
}

/// What a volume is made of.
pub(crate) fn of_volume(volume: &Volume) -> Vec<(Kind, &str)> {
    let map = volume.config_map.as_ref().map(|map| (Kind::ConfigMap, map.name.as_str()));
    let secret = volume.secret.as_ref().and_then(|it| it.secret_name.as_deref());
    let projected = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
    let parts = projected.flat_map(|source| {
        let map = source.config_map.as_ref().map(|map| (Kind::ConfigMap, map.name.as_str()));
        let secret = source.secret.as_ref().map(|it| (Kind::Secret, it.name.as_str()));
        map.into_iter().chain(secret)
    });
    let secret = secret.map(|name| (Kind::Secret, name));
    map.into_iter().chain(secret).chain(parts).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_a_pod_names_is_followed_and_nothing_else() {
        let env = |kind: &str, name: &str| json!({"name": "A", "valueFrom": {kind: {"name": name, "key": "k"}}});
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "initContainers": [{"name": "i", "env": [env("secretKeyRef", "s1")]}],
                "containers": [{"name": "c", "env": [env("configMapKeyRef", "m1"), {"name": "B", "value": "x"}],
                    "envFrom": [{"configMapRef": {"name": "m2"}}, {"secretRef": {"name": "s2"}}]}],
                "ephemeralContainers": [{"name": "e", "env": [env("secretKeyRef", "s5")]}],
                "volumes": [
                    {"name": "a", "configMap": {"name": "m3"}}, {"name": "b", "secret": {"secretName": "s3"}},
                    {"name": "c", "projected": {"sources": [
                        {"configMap": {"name": "m1"}}, {"secret": {"name": "s4"}},
                        {"serviceAccountToken": {"path": "token"}}]}},
                    {"name": "d", "emptyDir": {}}]}});
        let found = references(&serde_json::from_value(pod).unwrap());
        let names: Vec<_> = found
            .iter()
            .map(|key| format!("{}/{}/{}", key.kind.word(), key.namespace, key.name))
            .collect();
        let wanted = ["configmap/n/m1", "configmap/n/m2", "configmap/n/m3"].into_iter().chain([
            "secret/n/s1",
            "secret/n/s2",
            "secret/n/s3",
            "secret/n/s4",
            "secret/n/s5",
        ]);
        assert_eq!(names, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_there_is_told_in_the_kubelets_words() {
        let key = |name: &str| Key { kind: Kind::Secret, namespace: "n".into(), name: name.into() };
        let known = Known {
            answers: BTreeMap::from([
                (key("gone"), Answer::Absent),
                (key("no"), Answer::Refused("secrets \"no\" is forbidden".to_owned())),
                (key("here"), Answer::Found(Arc::default())),
            ]),
        };
        let find = |name, optional| known.find_optional("n", Kind::Secret, name, optional);
        assert_eq!(find("gone", None).unwrap_err().to_string(), "secret \"gone\" not found");
        assert_eq!(find("gone", Some(true)), Ok(None));
        assert_eq!(find("no", Some(true)).unwrap_err().to_string(), "secrets \"no\" is forbidden");
        assert!(matches!(find("later", Some(true)), Err(Lack::Unknown { .. })));
        assert!(find("here", None).unwrap().is_some());
    }
}
