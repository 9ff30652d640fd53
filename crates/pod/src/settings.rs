//! A guest's configuration, which it reads by `wasi:config/store`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// The beginning of the annotations that are entries of the configuration.
const PREFIX: &str = "config.nodule.dev/";

/// The entries: of each annotation `config.nodule.dev/KEY` the key and the value.
pub(crate) fn settings(pod: &Pod) -> BTreeMap<String, String> {
    let annotations = pod.metadata.annotations.iter().flatten();
    let own = annotations.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    own.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_of_the_prefix_are_entries_and_no_others() {
        let mut pod = Pod::default();
        assert_eq!(settings(&pod), BTreeMap::new());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        pod.metadata.annotations = Some(BTreeMap::from([
            pair("config.nodule.dev/greeting", "hello"),
            pair("config.nodule.dev/a.b", ""),
            pair("nodule.dev/greeting", "no"),
            pair("config.nodule.devious", "no"),
        ]));
        assert_eq!(settings(&pod), BTreeMap::from([pair("a.b", ""), pair("greeting", "hello")]));
    }
}
