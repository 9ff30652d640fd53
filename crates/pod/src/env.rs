//! A container's environment and the `$(VAR)` references in its command and arguments: pure.
//!
//! Syntax and order are Kubernetes' ("Define Dependent Environment Variables"): a reference sees what was defined before
//! it, an unknown one stays as it is written, `$$` is a dollar sign.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// Why a container's environment cannot be made. The container waits as `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A source of values that this node does not read.
    #[error(
        "env \"{name}\": {source_kind} is not supported by this node yet: give the value in the pod's spec"
    )]
    Unsupported { name: String, source_kind: &'static str },
    /// A field path that no pod has, or that is not known yet.
    #[error("env \"{name}\": unsupported fieldPath \"{path}\"")]
    FieldPath { name: String, path: String },
}

/// What the environment is made of besides the container's own list.
pub(crate) struct Sources<'a> {
    /// For `fieldRef`.
    pub(crate) pod: &'a Pod,
    /// The image's, which the pod's overrides.
    pub(crate) image: &'a [(String, String)],
    /// The node's name.
    pub(crate) node: &'a str,
    /// The pod's and the node's addresses, primary first.
    pub(crate) addresses: &'a [String],
}

/// The container's environment, in order, each name once.
pub(crate) fn environment(
    container: &Container,
    sources: &Sources<'_>,
) -> Result<Vec<(String, String)>, Error> {
    if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) {
        return Err(Error::Unsupported { name: "envFrom".to_owned(), source_kind: "envFrom" });
    }
    let mut env = Vec::new();
    set(&mut env, "HOSTNAME", hostname(sources.pod));
    for (name, value) in sources.image {
        set(&mut env, name, value.clone());
    }
    for variable in container.env.iter().flatten() {
        let value = value(variable, &env, sources)?;
        set(&mut env, &variable.name, value);
    }
    Ok(env)
}

/// The command or arguments with their references replaced.
pub(crate) fn expand_all(texts: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    texts.into_iter().flatten().map(|text| expand(text, env)).collect()
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => env.push((name.to_owned(), value)),
    }
}

fn value(
    variable: &EnvVar,
    env: &[(String, String)],
    sources: &Sources<'_>,
) -> Result<String, Error> {
    let Some(from) = &variable.value_from else {
        return Ok(expand(variable.value.as_deref().unwrap_or_default(), env));
    };
    let unsupported =
        |source_kind| Err(Error::Unsupported { name: variable.name.clone(), source_kind });
    if let Some(field) = &from.field_ref {
        return field_value(&field.field_path, sources).ok_or_else(|| Error::FieldPath {
            name: variable.name.clone(),
            path: field.field_path.clone(),
        });
    }
    match () {
        () if from.config_map_key_ref.is_some() => unsupported("configMapKeyRef"),
        () if from.secret_key_ref.is_some() => unsupported("secretKeyRef"),
        () if from.resource_field_ref.is_some() => unsupported("resourceFieldRef"),
        () => unsupported("this valueFrom"),
    }
}

fn field_value(path: &str, sources: &Sources<'_>) -> Option<String> {
    let meta = &sources.pod.metadata;
    let spec = sources.pod.spec.as_ref();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Some(
            meta.labels.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default(),
        );
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Some(
            meta.annotations.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default(),
        );
    }
    match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "spec.nodeName" => Some(sources.node.to_owned()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.podIP" => sources.addresses.first().cloned(),
        "status.hostIPs" | "status.podIPs" => Some(sources.addresses.join(",")),
        _ => None,
    }
}

/// `key` of `prefix['key']`.
fn subscript<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")
}

/// The name that the pod's containers see as theirs: `spec.hostname`, else the pod's name, cut to a DNS label.
fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref());
    let name = given.or(pod.metadata.name.as_deref()).unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// Replaces every `$(NAME)` whose name is known.
fn expand(text: &str, env: &[(String, String)]) -> String {
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
            match env.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
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
    use k8s_openapi::api::core::v1::{
        EnvVarSource, ObjectFieldSelector, PodSpec, SecretKeySelector,
    };

    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn plain(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
    }

    fn pod() -> Pod {
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        pod.metadata.name = Some("web-0".to_owned());
        pod.metadata.namespace = Some("shop".to_owned());
        pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        pod
    }

    fn made(env: Vec<EnvVar>, image: &[(String, String)]) -> Result<Vec<(String, String)>, Error> {
        let container = Container { env: Some(env), ..Container::default() };
        let pod = pod();
        let addresses = ["10.0.0.7".to_owned(), "fd00::7".to_owned()];
        environment(&container, &Sources { pod: &pod, image, node: "n1", addresses: &addresses })
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
            assert_eq!(expand(text, &env), wanted, "{text}");
        }
    }

    #[test]
    fn a_variable_sees_those_before_it_and_the_pod_overrides_the_image() {
        let image = pairs(&[("PATH", "/bin"), ("MODE", "image")]);
        let env = made(
            vec![
                plain("A", "$(B)"),
                plain("B", "1"),
                plain("C", "$(B)$(MODE)"),
                plain("MODE", "pod"),
            ],
            &image,
        );
        let wanted = [
            ("HOSTNAME", "web-0"),
            ("PATH", "/bin"),
            ("MODE", "pod"),
            ("A", "$(B)"),
            ("B", "1"),
            ("C", "1image"),
        ];
        assert_eq!(env.unwrap(), pairs(&wanted));
    }

    #[test]
    fn fields_of_the_pod_are_read() {
        let field = |path: &str| EnvVar {
            name: "F".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: path.to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        };
        for (path, wanted) in [
            ("metadata.name", Some("web-0")),
            ("metadata.namespace", Some("shop")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.labels['none']", Some("")),
            ("spec.nodeName", Some("n1")),
            ("status.podIP", Some("10.0.0.7")),
            ("status.hostIPs", Some("10.0.0.7,fd00::7")),
            ("metadata.colour", None),
        ] {
            let env = made(vec![field(path)], &[]);
            match wanted {
                Some(value) => assert_eq!(env.unwrap().last().unwrap().1, value, "{path}"),
                None => assert_eq!(
                    env.unwrap_err(),
                    Error::FieldPath { name: "F".to_owned(), path: path.to_owned() }
                ),
            }
        }
    }

    #[test]
    fn a_source_that_is_not_read_is_named() {
        let secret = EnvVarSource {
            secret_key_ref: Some(SecretKeySelector::default()),
            ..EnvVarSource::default()
        };
        let error = made(
            vec![EnvVar { name: "KEY".to_owned(), value: None, value_from: Some(secret) }],
            &[],
        )
        .unwrap_err();
        assert!(
            error.to_string().starts_with("env \"KEY\": secretKeyRef is not supported"),
            "{error}"
        );
    }
}
