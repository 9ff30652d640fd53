//! A container's environment and the `$(VAR)` references in its command and arguments: pure.
//!
//! Syntax and order are Kubernetes' ("Define Dependent Environment Variables") and the kubelet's
//! (`makeEnvironmentVariables`): a reference sees what was defined before it and the service links, an unknown one stays as
//! it is written, `$$` is a dollar sign. What the image sets is overridden, and no reference sees it.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource, FileKeySelector};

use crate::envfile;
use crate::field::Downward;
use crate::objects::{Kind, Known, Lack};
use crate::service::Services;

/// Names and values, in order, each name once.
pub(crate) type Pairs = Vec<(String, String)>;

/// Why a container's environment cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Lack(#[from] Lack),
    #[error("services have not yet been read at least once, cannot construct envvars")]
    Services,
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.title())]
    Key { kind: Kind, namespace: String, name: String, key: String },
    #[error("{} {name}: key {key} is not UTF-8, as a guest's environment is: mount it as a file", kind.title())]
    Text { kind: Kind, name: String, key: String },
    #[error("env \"{name}\": unsupported fieldPath: {path}")]
    FieldPath { name: String, path: String },
    #[error("env \"{name}\": {problem}")]
    Resource { name: String, problem: String },
    #[error("{0}")]
    File(String),
    #[error("environment variable key {key:?} not found in file {path:?}")]
    FileKey { key: String, path: String },
    #[error("env \"{name}\": this valueFrom is not supported by this node")]
    Unsupported { name: String },
}

impl Error {
    /// Whether it is only that the API server has not answered yet: whoever waits for it is told.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Services | Self::Lack(Lack::Unknown { .. }))
    }
}

/// Reads the environment file that a `fileKeyRef` means; none if there is no such file.
pub(crate) type ReadFile<'a> = &'a dyn Fn(&FileKeySelector) -> Result<Option<String>, String>;

/// What the environment is made of besides the container's own list.
pub(crate) struct Sources<'a> {
    pub(crate) downward: Downward<'a>,
    /// What the pod's containers see as theirs.
    pub(crate) hostname: &'a str,
    /// The image's, which the pod's overrides.
    pub(crate) image: &'a [(String, String)],
    pub(crate) known: &'a Known,
    /// None: they were not listed yet.
    pub(crate) services: Option<&'a Services>,
    pub(crate) file: ReadFile<'a>,
}

/// A container's environment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    /// What the guest sees.
    pub(crate) all: Pairs,
    /// What its pod's spec and the service links make of it: what references see.
    own: Pairs,
}

/// The container's environment.
pub(crate) fn environment(
    container: &Container,
    sources: &Sources<'_>,
) -> Result<Environment, Error> {
    let pod = sources.downward.pod;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = sources.services.ok_or(Error::Services)?.variables(namespace, links);
    let mut own = Pairs::new();
    for from in container.env_from.iter().flatten() {
        for (name, value) in sources.all_of(from)? {
            set(&mut own, &name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = sources.value(variable, container, &own, &services)? {
            set(&mut own, &variable.name, value);
        }
    }
    for (name, value) in services {
        if !own.iter().any(|(known, _)| *known == name) {
            own.push((name, value));
        }
    }
    let mut all = vec![("HOSTNAME".to_owned(), sources.hostname.to_owned())];
    for (name, value) in sources.image.iter().chain(&own) {
        set(&mut all, name, value.clone());
    }
    Ok(Environment { all, own })
}

impl Environment {
    /// The command or arguments with their references replaced.
    pub(crate) fn expand_all(&self, texts: Option<&Vec<String>>) -> Vec<String> {
        texts.into_iter().flatten().map(|text| self.expand(text)).collect()
    }

    fn expand(&self, text: &str) -> String {
        expand(text, &|name| get(&self.own, name))
    }

    /// A `subPathExpr`; the name of the first variable that it refers to in vain is the error.
    pub(crate) fn expand_path(&self, text: &str) -> Result<String, String> {
        let missing = std::cell::RefCell::new(None);
        let path = expand(text, &|name| {
            let value = get(&self.own, name).filter(|value| !value.is_empty());
            if value.is_none() {
                missing.borrow_mut().get_or_insert_with(|| name.to_owned());
            }
            value
        });
        missing.into_inner().map_or(Ok(path), Err)
    }
}

fn set(env: &mut Pairs, name: &str, value: String) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => env.push((name.to_owned(), value)),
    }
}

fn get<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl Sources<'_> {
    fn namespace(&self) -> &str {
        self.downward.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// All of a ConfigMap or a Secret, each name with the prefix.
    fn all_of(&self, from: &EnvFromSource) -> Result<Pairs, Error> {
        let map = from.config_map_ref.as_ref();
        let secret = from.secret_ref.as_ref();
        let source = map
            .map(|map| (Kind::ConfigMap, &map.name, map.optional))
            .or(secret.map(|secret| (Kind::Secret, &secret.name, secret.optional)));
        let Some((kind, name, optional)) = source else { return Ok(Pairs::new()) };
        let object = self.known.find_optional(self.namespace(), kind, name, optional)?;
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let data = object.iter().flat_map(|object| &object.data);
        data.map(|(key, value)| Ok((format!("{prefix}{key}"), text(kind, name, key, value)?)))
            .collect()
    }

    /// None where what the variable refers to need not be there and is not.
    fn value(
        &self,
        variable: &EnvVar,
        container: &Container,
        env: &[(String, String)],
        services: &[(String, String)],
    ) -> Result<Option<String>, Error> {
        let plain = variable.value.as_deref().unwrap_or_default();
        let look = |name: &str| get(env, name).or_else(|| get(services, name));
        match variable.value_from.as_ref().filter(|_| plain.is_empty()) {
            None => Ok(Some(expand(plain, &look))),
            Some(from) => self.referred(&variable.name, from, container),
        }
    }

    fn referred(
        &self,
        name: &str,
        from: &EnvVarSource,
        container: &Container,
    ) -> Result<Option<String>, Error> {
        if let Some(field) = &from.field_ref {
            let path = field.field_path.clone();
            let value = self.downward.field(&path);
            return value.map(Some).ok_or(Error::FieldPath { name: name.to_owned(), path });
        }
        if let Some(resource) = &from.resource_field_ref {
            let value = self.downward.resource(resource, Some(container));
            return value
                .map(Some)
                .map_err(|problem| Error::Resource { name: name.to_owned(), problem });
        }
        if let Some(from) = &from.config_map_key_ref {
            return self.key(Kind::ConfigMap, &from.name, &from.key, from.optional);
        }
        if let Some(from) = &from.secret_key_ref {
            return self.key(Kind::Secret, &from.name, &from.key, from.optional);
        }
        match &from.file_key_ref {
            Some(from) => self.in_file(from),
            None => Err(Error::Unsupported { name: name.to_owned() }),
        }
    }

    fn key(
        &self,
        kind: Kind,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<String>, Error> {
        let namespace = self.namespace();
        let object = self.known.find_optional(namespace, kind, name, optional)?;
        match object.as_ref().and_then(|object| object.data.get(key)) {
            Some(value) => text(kind, name, key, value).map(Some),
            None if optional == Some(true) => Ok(None),
            None => Err(Error::Key {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        }
    }

    fn in_file(&self, from: &FileKeySelector) -> Result<Option<String>, Error> {
        let file = (self.file)(from).map_err(Error::File)?;
        let value = file.and_then(|text| envfile::find(&text, &from.key));
        match value {
            None if from.optional != Some(true) => {
                Err(Error::FileKey { key: from.key.clone(), path: from.path.clone() })
            }
            value => Ok(value),
        }
    }
}

pub(crate) fn text(kind: Kind, name: &str, key: &str, value: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8(value.to_vec());
    text.map_err(|_| Error::Text { kind, name: name.to_owned(), key: key.to_owned() })
}

/// Replaces the references to these variables.
pub(crate) fn expand_with(text: &str, env: &[(String, String)]) -> String {
    expand(text, &|name| {
        env.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str())
    })
}

/// Replaces every `$(NAME)` whose name is known.
fn expand<'a>(text: &str, look: &dyn Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) =
            after.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match look(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::{Answer, Key, Object};

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn known() -> Known {
        let key = |kind, name: &str| Key { kind, namespace: "shop".into(), name: name.into() };
        let object = |data: &[(&str, &[u8])]| {
            let data =
                data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
            Answer::Found(Arc::new(Object { data, ..Object::default() }))
        };
        Known {
            answers: BTreeMap::from([
                (key(Kind::ConfigMap, "map"), object(&[("A", b"map-a"), ("B", b"map-b")])),
                (key(Kind::Secret, "secret"), object(&[("A", b"secret-a"), ("bin", b"\xff")])),
                (key(Kind::ConfigMap, "gone"), Answer::Absent),
                (key(Kind::Secret, "gone"), Answer::Absent),
            ]),
        }
    }

    fn made(container: &Value, image: &[(String, String)]) -> Result<Environment, Error> {
        let container: Container = serde_json::from_value(container.clone()).unwrap();
        let pod =
            json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {"containers": []}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let addresses = ["10.0.0.7".to_owned()];
        let allocatable = BTreeMap::new();
        let file = |from: &FileKeySelector| match from.path.as_str() {
            "env" => Ok(Some("K='v'".to_owned())),
            "none" => Ok(None),
            _ => Err("couldn't parse env file".to_owned()),
        };
        let sources = Sources {
            downward: Downward {
                pod: &pod,
                node: "n1",
                addresses: &addresses,
                allocatable: &allocatable,
            },
            hostname: "web-0",
            image,
            known: &known(),
            services: Some(&Services::default()),
            file: &file,
        };
        environment(&container, &sources)
    }

    fn all(container: &Value) -> Pairs {
        made(container, &[]).unwrap().all.split_off(1)
    }

    fn error(from: &Value) -> String {
        let container = json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]});
        made(&container, &[]).unwrap_err().to_string()
    }

    #[test]
    fn references_are_expanded_as_kubernetes_documents() {
        let env = pairs(&[("A", "x"), ("B", "$(A)")]);
        for (text, wanted) in [
            ("plain", "plain"),
            ("$(A)", "x"),
            ("pre-$(A)-post", "pre-x-post"),
            ("$(A)$(A)", "xx"),
            ("$(NOPE)", "$(NOPE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$$$$(A)", "$$(A)"),
            ("$(B)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("100$", "100$"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &|name| get(&env, name)), wanted, "{text}");
        }
    }

    #[test]
    fn the_pod_overrides_the_image_and_refers_to_its_own_alone() {
        let image = pairs(&[("PATH", "/bin"), ("MODE", "image")]);
        let plain = |name: &str, value: &str| json!({"name": name, "value": value});
        let env = json!([
            plain("A", "$(B)"),
            plain("B", "1"),
            plain("C", "$(B)$(MODE)"),
            plain("MODE", "pod")
        ]);
        let made = made(&json!({"name": "c", "env": env}), &image).unwrap();
        let wanted = [
            ("HOSTNAME", "web-0"),
            ("PATH", "/bin"),
            ("MODE", "pod"),
            ("A", "$(B)"),
            ("B", "1"),
            ("C", "1$(MODE)"),
        ];
        assert_eq!(made.all, pairs(&wanted));
        let args = vec!["$(MODE) $(PATH)".to_owned()];
        assert_eq!(made.expand_all(Some(&args)), ["pod $(PATH)"]);
    }

    #[test]
    fn later_sources_win_over_earlier_ones_and_the_list_over_both() {
        let from =
            |kind: &str, name: &str, prefix: &str| json!({kind: {"name": name}, "prefix": prefix});
        let container = json!({"name": "c",
            "envFrom": [from("configMapRef", "map", ""), from("configMapRef", "map", "P_"),
                {"secretRef": {"name": "gone", "optional": true}}],
            "env": [{"name": "B", "value": "own $(P_A)"}]});
        let wanted = [("A", "map-a"), ("B", "own map-a"), ("P_A", "map-a"), ("P_B", "map-b")];
        assert_eq!(all(&container), pairs(&wanted));
    }

    #[test]
    fn keys_are_read_and_optional_ones_left_out() {
        let key = |kind: &str, name: &str, key: &str| json!({kind: {"name": name, "key": key, "optional": true}});
        let sources = [
            ("M", key("configMapKeyRef", "map", "A")),
            ("S", key("secretKeyRef", "secret", "A")),
            ("N", key("secretKeyRef", "secret", "none")),
            ("G", key("configMapKeyRef", "gone", "A")),
            ("F", json!({"fileKeyRef": {"volumeName": "v", "path": "env", "key": "K"}})),
            (
                "O",
                json!({"fileKeyRef": {"volumeName": "v", "path": "none", "key": "K", "optional": true}}),
            ),
        ];
        let env: Vec<_> =
            sources.iter().map(|(name, from)| json!({"name": name, "valueFrom": from})).collect();
        let wanted = [("M", "map-a"), ("S", "secret-a"), ("F", "v")];
        assert_eq!(all(&json!({"name": "c", "env": env})), pairs(&wanted));
    }

    #[test]
    fn what_is_missing_is_told_in_the_kubelets_words() {
        let file =
            |path: &str| json!({"fileKeyRef": {"volumeName": "v", "path": path, "key": "N"}});
        for (from, message) in [
            (
                json!({"configMapKeyRef": {"name": "gone", "key": "k"}}),
                "configmap \"gone\" not found",
            ),
            (json!({"secretKeyRef": {"name": "gone", "key": "k"}}), "secret \"gone\" not found"),
            (
                json!({"configMapKeyRef": {"name": "map", "key": "k"}}),
                "couldn't find key k in ConfigMap shop/map",
            ),
            (
                json!({"secretKeyRef": {"name": "secret", "key": "k"}}),
                "couldn't find key k in Secret shop/secret",
            ),
            (
                json!({"secretKeyRef": {"name": "secret", "key": "bin"}}),
                "Secret secret: key bin is not UTF-8, as a guest's environment is: mount it as a file",
            ),
            (
                json!({"fieldRef": {"fieldPath": "metadata.colour"}}),
                "env \"X\": unsupported fieldPath: metadata.colour",
            ),
            (
                json!({"resourceFieldRef": {"resource": "limits.gpu"}}),
                "env \"X\": unsupported container resource : limits.gpu",
            ),
            (file("env"), "environment variable key \"N\" not found in file \"env\""),
            (file("bad"), "couldn't parse env file"),
        ] {
            assert_eq!(error(&from), message);
        }
    }

    #[test]
    fn what_is_not_known_yet_is_no_fault() {
        let later = json!({"name": "c", "env": [
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "later", "key": "k", "optional": true}}}]});
        assert!(made(&later, &[]).unwrap_err().is_unknown());
        let gone = json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone"}}]});
        assert!(!made(&gone, &[]).unwrap_err().is_unknown());
    }

    #[test]
    fn a_path_needs_every_variable_that_it_names() {
        let env = json!([{"name": "A", "value": "a"}, {"name": "E", "value": ""}]);
        let made = made(&json!({"name": "c", "env": env}), &[]).unwrap();
        assert_eq!(made.expand_path("$(A)/$$(A)"), Ok("a/$(A)".to_owned()));
        assert_eq!(made.expand_path("$(A)$(E)$(N)"), Err("E".to_owned()));
        assert_eq!(made.expand_path("$(N)"), Err("N".to_owned()));
    }
}
