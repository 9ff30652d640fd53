//! From files to the pods that are to run.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use nodule_image::Local;
use nodule_manifest::{Document, Error, Object, check, fill, read};

use super::inline::Objects;
use super::pods::{name, namespace};

/// More than this is no manifest.
const MOST: u64 = 8 << 20;
/// No Deployment here has more pods: each is a process or more.
const MOST_REPLICAS: i32 = 1000;

/// What manifests ask for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) pods: Vec<Pod>,
    /// Docker configurations of the Secrets that pods name for their images.
    pub(crate) logins: Vec<String>,
}

/// Reads manifests; `volumes` is where claims have their folders.
pub(crate) fn wanted(files: &[PathBuf], volumes: &Path) -> Result<Wanted> {
    let mut documents = Vec::new();
    for file in files {
        let (shown, text) = text(file)?;
        documents.extend(read(&shown, &text)?);
    }
    let objects = Objects::of(&documents, volumes)?;
    let Wanted { mut pods, mut logins } = Wanted::default();
    for document in &documents {
        for mut pod in of(document)? {
            prepare(document, &mut pod)?;
            logins.extend(objects.take_logins(document, &mut pod)?);
            objects.write_into(document, &mut pod)?;
            ensure!(
                !pods
                    .iter()
                    .any(|other| name(other) == name(&pod) && namespace(other) == namespace(&pod)),
                document
                    .error(format!("there is a pod \"{}\" before", name(&pod)))
                    .at("metadata.name")
            );
            pods.push(pod);
        }
    }
    ensure!(!pods.is_empty(), "there is no Pod and no Deployment to run: add one to the manifests");
    Ok(Wanted { pods, logins })
}

/// The text of a file, and how it is named.
fn text(file: &Path) -> Result<(String, String)> {
    let shown = file.display().to_string();
    let place = || format!("read {shown}");
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().take(MOST + 1).read_to_string(&mut text).context("read standard input")?;
    } else {
        let file = fs::File::open(file).with_context(place)?;
        file.take(MOST + 1).read_to_string(&mut text).with_context(place)?;
    }
    ensure!(text.len() as u64 <= MOST, "{shown}: a manifest has at most {} MiB", MOST >> 20);
    Ok((shown, text))
}

/// The pods that a document asks for.
fn of(document: &Document) -> Result<Vec<Pod>, Error> {
    match &document.object {
        Object::Pod(pod) => Ok(vec![Pod::clone(pod)]),
        Object::Deployment(deployment) => replicas(document, deployment),
        Object::ConfigMap(_) | Object::Secret(_) | Object::Claim(_) => Ok(Vec::new()),
    }
}

/// As podman names them: NAME-pod, and a number where there are several.
fn replicas(document: &Document, deployment: &Deployment) -> Result<Vec<Pod>, Error> {
    let wrong = |field: &str, cause: String| Err(document.error(cause).at(field));
    let spec = &deployment.spec;
    let count = spec.replicas.unwrap_or(1);
    if !(0..=MOST_REPLICAS).contains(&count) {
        return wrong("spec.replicas", format!("{count} is not from 0 to {MOST_REPLICAS}"));
    }
    let stem = deployment.metadata.name.clone().unwrap_or_default();
    if stem.is_empty() {
        return wrong("metadata.name", "must be set".to_owned());
    }
    let mut template = Pod {
        metadata: spec.template.metadata.clone().unwrap_or_default(),
        spec: spec.template.spec.clone(),
        status: None,
    };
    template.metadata.namespace.clone_from(&deployment.metadata.namespace);
    let named = |number: i32| {
        let mut pod = template.clone();
        let name = if count == 1 { format!("{stem}-pod") } else { format!("{stem}-pod-{number}") };
        pod.metadata.name = Some(name);
        pod
    };
    Ok((0..count).map(named).collect())
}

/// What an API server would do, and what it would not let through.
fn prepare(document: &Document, pod: &mut Pod) -> Result<(), Error> {
    let path = if matches!(document.object, Object::Deployment(_)) { "spec.template." } else { "" };
    check(pod).map_err(|(field, cause)| document.error(cause).at(format!("{path}{field}")))?;
    let meta = &mut pod.metadata;
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.resource_version = None;
    meta.owner_references = None;
    meta.generation = Some(1);
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
    let spec = pod.spec.get_or_insert_default();
    fill(spec);
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        let image = container.image.clone().unwrap_or_default();
        if is_path(&image) {
            let place = image_path(document, &image);
            container.image = Some(place?.display().to_string());
        }
    }
    Ok(())
}

fn is_path(image: &str) -> bool {
    image.starts_with("./") || image.starts_with("../") || image.starts_with('/')
}

/// An image's place, by that of its manifest; of standard input, by the current folder.
fn image_path(document: &Document, image: &str) -> Result<PathBuf, Error> {
    let folder = Path::new(&document.file).parent().unwrap_or(Path::new(""));
    let path = std::path::absolute(folder.join(image))
        .map_err(|error| document.error(format!("image {image}: {error}")))?;
    let there = local(&path.display().to_string()).is_some_and(|local| match local {
        Local::File(path) => path.exists(),
        Local::Layout { folder, .. } => folder.exists(),
    });
    if !there {
        let shown = path.display();
        return Err(document.error(format!("image {image}: there is no file or folder {shown}")));
    }
    Ok(path)
}

/// What an absolute path means as an image: a Wasm file, or a folder with a tag or without. Anything else is a name.
pub(crate) fn local(image: &str) -> Option<Local> {
    if !image.starts_with('/') {
        return None;
    }
    let path = Path::new(image);
    if path.is_dir() {
        return Some(Local::Layout { folder: path.to_owned(), tag: None });
    }
    match image.rsplit_once(':') {
        Some((folder, tag)) if !path.exists() && Path::new(folder).is_dir() => {
            Some(Local::Layout { folder: folder.into(), tag: Some(tag.to_owned()) })
        }
        _ => Some(Local::File(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: c, image: 'example.com/a:1'}\n";

    fn made(text: &str) -> Result<Vec<Pod>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.yaml");
        fs::write(folder.path().join("app.wasm"), "").unwrap();
        fs::create_dir(folder.path().join("layout")).unwrap();
        fs::write(&file, text).unwrap();
        wanted(&[file], &folder.path().join("volumes")).map(|wanted| wanted.pods)
    }

    fn error(text: &str) -> String {
        format!("{:#}", made(text).unwrap_err())
    }

    #[test]
    fn a_pod_has_its_defaults_and_no_more_than_a_file_may_say() {
        let text = POD.replace(
            "{name: a}",
            "{name: a, uid: ../x, deletionTimestamp: '2026-01-01T00:00:00Z'}",
        );
        let pod = made(&text).unwrap().remove(0);
        assert_eq!((pod.metadata.uid, pod.metadata.deletion_timestamp), (None, None));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(pod.spec.unwrap().restart_policy.as_deref(), Some("Always"));
    }

    #[test]
    fn a_deployment_is_its_replicas() {
        let deployment = |replicas: i32| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: web}}\nspec:\n  replicas: {replicas}\n  selector: {{}}\n  \
                 template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: c, image: i}}]}}\n"
            )
        };
        let names = |replicas| {
            made(&deployment(replicas))
                .unwrap()
                .iter()
                .map(|pod| name(pod).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["web-pod"]);
        assert_eq!(names(3), ["web-pod-0", "web-pod-1", "web-pod-2"]);
        assert!(error(&deployment(-1)).contains("field \"spec.replicas\""));
        let bad = deployment(1).replace("image: i", "image: ''");
        assert!(error(&bad).contains("field \"spec.template.spec.containers[0].image\""));
        assert!(error(&deployment(0)).contains("no Pod and no Deployment"));
    }

    #[test]
    fn an_image_may_lie_beside_the_manifest() {
        let image = |image: &str| {
            let pod = made(&POD.replace("example.com/a:1", image))?.remove(0);
            Ok::<_, anyhow::Error>(pod.spec.unwrap().containers.remove(0).image.unwrap())
        };
        assert_eq!(image("app.wasm").unwrap(), "app.wasm");
        assert!(image("./app.wasm").unwrap().starts_with('/'));
        assert!(image("./layout:v1").unwrap().ends_with("layout:v1"));
        let error = image("./other.wasm").unwrap_err().to_string();
        assert!(
            error.contains("m.yaml, document 1: image ./other.wasm: there is no file"),
            "{error}"
        );
    }

    #[test]
    fn a_path_is_a_file_or_a_folder_with_a_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        assert_eq!(local("app:1"), None);
        assert_eq!(local("/no/app.wasm"), Some(Local::File("/no/app.wasm".into())));
        let layout = |tag: Option<&str>| Local::Layout {
            folder: folder.path().into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(local(&format!("{path}")), Some(layout(None)));
        assert_eq!(local(&format!("{path}:v1")), Some(layout(Some("v1"))));
    }

    #[test]
    fn two_pods_of_one_name_are_refused() {
        let text = error(&format!("{POD}---\n{POD}"));
        assert!(text.contains("m.yaml, document 2, field \"metadata.name\""), "{text}");
    }
}
