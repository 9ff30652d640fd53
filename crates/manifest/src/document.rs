//! From the text of a file to objects. Strict, as `kubectl` is by default: a field that the API does not know is an error,
//! as it would otherwise be a wish that is passed over in silence.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;

/// A manifest is read whole into memory: one of more bytes is none.
pub(crate) const MOST: u64 = 8 << 20;

/// One object of a file, and where it stands there.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file, as it was named.
    pub file: String,
    /// Counts from 1.
    pub number: usize,
    /// What it says.
    pub object: Object,
}

/// The kinds that can be made use of without an API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// `v1` Pod.
    Pod(Box<Pod>),
    /// `apps/v1` Deployment.
    Deployment(Box<Deployment>),
    /// `v1` ConfigMap.
    ConfigMap(Box<ConfigMap>),
    /// `v1` Secret.
    Secret(Box<Secret>),
    /// `v1` PersistentVolumeClaim.
    Claim(Box<PersistentVolumeClaim>),
}

impl Document {
    /// What is wrong with this document.
    pub fn error(&self, cause: impl Into<String>) -> Error {
        Error::document(&self.file, self.number, cause)
    }
}

/// Reads the documents of a file: YAML, of which JSON is a part. The items of a `List` or `PodList` are documents of the
/// list's number.
///
/// # Errors
/// [`Error`] names the document and the field at fault.
pub fn read(file: &str, text: &str) -> Result<Vec<Document>, Error> {
    let values: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| Error::file(file, one_line(&error)))?;
    let has_list = values.iter().any(is_list);
    let mut documents = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        for value in items(value) {
            let number = index + 1;
            let object = object(file, number, value)?;
            documents.push(Document { file: file.to_owned(), number, object });
        }
    }
    if documents.is_empty() && !has_list {
        return Err(Error::file(file, "there is no object in it"));
    }
    Ok(documents)
}

/// The parser shows the place in the text on lines of their own.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}

/// The objects of a list, or the one that is none. Nothing at all, as after a last `---`, is none.
fn items(value: Value) -> Vec<Value> {
    if value.is_null() {
        return Vec::new();
    }
    if !is_list(&value) {
        return vec![value];
    }
    let of_pods = text(&value, "kind") == "PodList";
    let Value::Object(mut list) = value else { return Vec::new() };
    let Some(Value::Array(items)) = list.remove("items") else { return Vec::new() };
    items.into_iter().map(|item| if of_pods { as_pod(item) } else { item }).collect()
}

fn is_list(value: &Value) -> bool {
    matches!(text(value, "kind").as_str(), "List" | "PodList")
}

/// The items of a `PodList` leave out what they are.
fn as_pod(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| "v1".into());
        fields.entry("kind").or_insert_with(|| "Pod".into());
    }
    item
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn object(file: &str, number: usize, value: Value) -> Result<Object, Error> {
    let at = Place { file, number };
    match (text(&value, "apiVersion").as_str(), text(&value, "kind").as_str()) {
        ("v1", "Pod") => at.typed(value).map(Box::new).map(Object::Pod),
        ("apps/v1", "Deployment") => at.typed(value).map(Box::new).map(Object::Deployment),
        ("v1", "ConfigMap") => at.typed(value).map(Box::new).map(Object::ConfigMap),
        ("v1", "Secret") => at.typed(value).map(Box::new).map(Object::Secret),
        ("v1", "PersistentVolumeClaim") => at.typed(value).map(Box::new).map(Object::Claim),
        ("", "") => Err(at.error("it is no Kubernetes object: apiVersion and kind must be set")),
        (version, kind) => Err(at.error(format!(
            "kind \"{kind}\" of apiVersion \"{version}\" cannot be used here: use Pod, ConfigMap, Secret or \
             PersistentVolumeClaim of v1, or Deployment of apps/v1"
        ))),
    }
}

struct Place<'a> {
    file: &'a str,
    number: usize,
}

impl Place<'_> {
    fn error(&self, cause: impl Into<String>) -> Error {
        Error::document(self.file, self.number, cause)
    }

    fn typed<T: DeserializeOwned + Serialize>(&self, mut value: Value) -> Result<T, Error> {
        quantities(&mut value);
        let typed: T = serde_path_to_error::deserialize(&value).map_err(|error| {
            let field = error.path().to_string();
            let wrong = self.error(error.inner().to_string());
            if field == "." { wrong } else { wrong.at(field) }
        })?;
        let known = serde_json::to_value(&typed).map_err(|error| self.error(error.to_string()))?;
        match unknown(&value, &known, "") {
            Some(field) => Err(self.error("the API knows no such field: remove it").at(field)),
            None => Ok(typed),
        }
    }
}

/// The first field that reading has dropped. Nulls are as good as nothing.
fn unknown(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match known.get(name) {
                _ if is_nothing(value) => None,
                Some(known) => unknown(value, known, &path),
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => {
            let pairs = given.iter().zip(known).enumerate();
            let mut found = pairs
                .filter_map(|(i, (given, known))| unknown(given, known, &format!("{path}[{i}]")));
            found.next()
        }
        _ => None,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A quantity may be written as a number (`cpu: 2`), which the API's types have as text.
fn quantities(value: &mut Value) {
    const MAPS: [&str; 4] = ["limits", "requests", "capacity", "overhead"];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_object_mut() {
                    Some(amounts) if MAPS.contains(&name.as_str()) => {
                        amounts.values_mut().for_each(as_text);
                    }
                    _ if name == "sizeLimit" => as_text(value),
                    _ => quantities(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn as_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    image: i\n";

    #[test]
    fn the_documents_of_a_file_are_read_in_their_order() {
        let text = format!(
            "---\n{POD}    resources: {{limits: {{cpu: 2}}}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{a: b}}\n---\n"
        );
        let documents = read("f.yaml", &text).unwrap();
        let [pod, map] = documents.as_slice() else { panic!("{documents:?}") };
        let Object::Pod(first) = &pod.object else { panic!("{pod:?}") };
        let limits = first.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap();
        assert_eq!(limits.limits.as_ref().unwrap()["cpu"].0, "2");
        assert!(matches!(map.object, Object::ConfigMap(_)) && map.number > pod.number);
    }

    #[test]
    fn lists_are_taken_apart_and_json_is_read() {
        let list = r#"{"apiVersion": "v1", "kind": "PodList", "items": [
            {"metadata": {"name": "a"}, "spec": {"containers": []}}, {"metadata": {"name": "b"}, "spec": {"containers": []}}]}"#;
        assert_eq!(read("l.json", list).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_document_and_field() {
        for (text, expected) in [
            (
                POD.replace("image:", "imagePullPolcy: x\n    image:"),
                "f, document 1, field \"spec.containers[0].imagePullPolcy\": the API knows no such field",
            ),
            (
                POD.replace("image: i", "image: [i]"),
                "f, document 1, field \"spec.containers[0].image\": invalid type",
            ),
            (
                format!("{POD}    env: [{{name: A, value: 5}}]\n"),
                "f, document 1, field \"spec.containers[0].env[0].value\": invalid type",
            ),
            (
                format!("{POD}---\nkind: Service\napiVersion: v1\n"),
                "f, document 2: kind \"Service\" of apiVersion \"v1\" cannot be used here",
            ),
            ("a: 1\n".to_owned(), "f, document 1: it is no Kubernetes object"),
            (String::new(), "f: there is no object in it"),
            ("a: [".to_owned(), "f: "),
            (format!("{POD}kind: Pod\n"), "f: "),
        ] {
            let error = read("f", &text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}\n{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
