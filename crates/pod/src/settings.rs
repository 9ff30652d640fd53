//! A guest's configuration, which it reads by `wasi:config/store`: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::env;
use crate::objects::{Key, Kind, Known};

/// The beginning of the annotations that are entries of the configuration.
const PREFIX: &str = "config.nodule.dev/";

/// The one that is not: it names a ConfigMap whose entries are the configuration's, too.
const FROM: &str = "config.nodule.dev/from";

/// The entries: those of the ConfigMap that the annotation `from` names, then of each annotation `config.nodule.dev/KEY` the
/// key and the value.
pub(crate) fn settings(pod: &Pod, known: &Known) -> Result<BTreeMap<String, String>, env::Error> {
    let mut entries = BTreeMap::new();
    if let Some(Key { kind, namespace, name }) = reference(pod) {
        let object = known.find(&namespace, kind, &name)?;
        for (key, value) in &object.data {
            entries.insert(key.clone(), env::text(kind, &name, key, value)?);
        }
    }
    let annotations = pod.metadata.annotations.iter().flatten();
    let own = annotations.filter(|(key, _)| *key != FROM);
    let own = own.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    entries.extend(own.map(|(key, value)| (key.to_owned(), value.clone())));
    Ok(entries)
}

/// The ConfigMap that the pod's configuration is read from.
pub(crate) fn reference(pod: &Pod) -> Option<Key> {
    let name = pod.metadata.annotations.as_ref()?.get(FROM)?.clone();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    (!name.is_empty()).then_some(Key { kind: Kind::ConfigMap, namespace, name })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::objects::{Answer, Object};

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("n".to_owned());
        let annotations = annotations.iter().map(|(key, value)| pair(key, value));
        pod.metadata.annotations = Some(annotations.collect());
        pod
    }

    #[test]
    fn annotations_of_the_prefix_are_entries_and_no_others() {
        let none = Known::default();
        assert_eq!(settings(&Pod::default(), &none), Ok(BTreeMap::new()));
        let pod = pod(&[
            ("config.nodule.dev/greeting", "hello"),
            ("config.nodule.dev/a.b", ""),
            ("nodule.dev/greeting", "no"),
            ("config.nodule.devious", "no"),
        ]);
        let wanted = BTreeMap::from([pair("a.b", ""), pair("greeting", "hello")]);
        assert_eq!(settings(&pod, &none), Ok(wanted));
    }

    #[test]
    fn a_config_map_gives_the_entries_that_no_annotation_does() {
        let pod = pod(&[(FROM, "app"), ("config.nodule.dev/b", "own")]);
        let key = reference(&pod).unwrap();
        let data = [("a", "map"), ("b", "map")];
        let data = data.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).into();
        let object = Answer::Found(Arc::new(Object { data, ..Object::default() }));
        let known = Known { answers: BTreeMap::from([(key.clone(), object)]) };
        let wanted = BTreeMap::from([pair("a", "map"), pair("b", "own")]);
        assert_eq!(settings(&pod, &known), Ok(wanted));

        let gone = Known { answers: BTreeMap::from([(key, Answer::Absent)]) };
        let error = settings(&pod, &gone).unwrap_err().to_string();
        assert_eq!(error, "configmap \"app\" not found");
        assert!(settings(&pod, &Known::default()).unwrap_err().is_unknown());
    }
}
