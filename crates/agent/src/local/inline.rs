//! ConfigMaps, Secrets and claims of the manifests, written into the pods that refer to them.
//!
//! There is no API server that a running pod could read them from later, so a pod has them from its start, as they are then.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, EnvVar, HostPathVolumeSource, KeyToPath, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nodule_manifest::{Document, Error, Object};

use super::login;

/// Kind, namespace, name.
type Key = (&'static str, String, String);
type Data = BTreeMap<String, Vec<u8>>;

/// The objects that pods may refer to.
pub(crate) struct Objects {
    data: BTreeMap<Key, Data>,
    claims: BTreeMap<Key, PathBuf>,
    /// Where this call writes the content of volumes.
    content: PathBuf,
}

/// Content that no pod uses is kept so long.
const OLD: Duration = Duration::from_hours(1);
const CONFIG_MAP: &str = "ConfigMap";
const SECRET: &str = "Secret";
const CLAIM: &str = "PersistentVolumeClaim";

impl Objects {
    /// Those of the documents. Claims have a folder each below `folder`, which outlives their pods; all else is written to
    /// a new folder, as a pod of the same name may run.
    pub(crate) fn of(documents: &[Document], folder: &Path) -> Result<Self, Error> {
        let content = contents(folder).join(format!("{:016x}", rand::random::<u64>()));
        let mut objects = Self { data: BTreeMap::new(), claims: BTreeMap::new(), content };
        for document in documents {
            match &document.object {
                Object::ConfigMap(map) => {
                    let text = map.data.clone().into_iter().flatten();
                    let mut data: Data = text.map(|(key, value)| (key, value.into())).collect();
                    data.extend(
                        map.binary_data
                            .clone()
                            .into_iter()
                            .flatten()
                            .map(|(key, value)| (key, value.0)),
                    );
                    objects.add(document, CONFIG_MAP, &map.metadata, data)?;
                }
                Object::Secret(secret) => {
                    let coded = secret.data.clone().into_iter().flatten();
                    let mut data: Data = coded.map(|(key, value)| (key, value.0)).collect();
                    data.extend(
                        secret
                            .string_data
                            .clone()
                            .into_iter()
                            .flatten()
                            .map(|(key, value)| (key, value.into())),
                    );
                    objects.add(document, SECRET, &secret.metadata, data)?;
                }
                Object::Claim(claim) => {
                    let key = key(document, CLAIM, &claim.metadata)?;
                    let place = folder.join("claims").join(&key.1).join(&key.2);
                    objects.claims.insert(key, place);
                }
                Object::Pod(_) | Object::Deployment(_) => {}
            }
        }
        Ok(objects)
    }

    fn add(
        &mut self,
        document: &Document,
        kind: &'static str,
        meta: &ObjectMeta,
        data: Data,
    ) -> Result<(), Error> {
        let key = key(document, kind, meta)?;
        if let Some(bad) = data.keys().find(|key| !is_key(key)) {
            return Err(document
                .error("a key has letters, digits, '-', '_' and '.'")
                .at(format!("data.{bad}")));
        }
        if self.data.insert(key, data).is_some() {
            return Err(document
                .error(format!("there is a {kind} of this name before"))
                .at("metadata.name"));
        }
        Ok(())
    }

    /// The docker configurations of the Secrets that a pod names for its images, which are no use to it later.
    pub(crate) fn take_logins(
        &self,
        document: &Document,
        pod: &mut Pod,
    ) -> Result<Vec<String>, Error> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let scope = Scope { objects: self, document, namespace: &namespace };
        let spec = pod.spec.get_or_insert_default();
        let mut logins = Vec::new();
        for secret in spec.image_pull_secrets.take().into_iter().flatten() {
            let data = scope.find(SECRET, &secret.name, None)?;
            logins.extend(data.and_then(login::of_secret));
        }
        Ok(logins)
    }

    /// Writes into a pod what it refers to.
    pub(crate) fn write_into(&self, document: &Document, pod: &mut Pod) -> Result<()> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let scope = Scope { objects: self, document, namespace: &namespace };
        let spec = pod.spec.get_or_insert_default();
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            scope.environment(container)?;
        }
        for volume in spec.volumes.iter_mut().flatten() {
            let place = self.content.join(&namespace).join(&name).join(&volume.name);
            scope.volume(volume, &place)?;
        }
        Ok(())
    }
}

/// Where all calls write the content of volumes, a folder each.
fn contents(folder: &Path) -> PathBuf {
    folder.join("objects")
}

/// Removes the content that no pod uses any more. What was written just now may be of a pod that comes.
pub(crate) fn sweep(folder: &Path, pods: &[Pod]) {
    let volumes = pods.iter().filter_map(|pod| pod.spec.as_ref()?.volumes.as_ref()).flatten();
    let used: Vec<_> = volumes.filter_map(|volume| volume.host_path.as_ref()).collect();
    for entry in fs::read_dir(contents(folder)).into_iter().flatten().flatten() {
        let path = entry.path();
        let modified = entry.metadata().and_then(|entry| entry.modified());
        let is_old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > OLD));
        if is_old && !used.iter().any(|volume| Path::new(&volume.path).starts_with(&path)) {
            // The next sweep tries again.
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn key(document: &Document, kind: &'static str, meta: &ObjectMeta) -> Result<Key, Error> {
    let namespace = meta.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let name = meta.name.clone().unwrap_or_default();
    let is_name = |name: &str| {
        let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        name.len() <= 253
            && name.starts_with(usual)
            && name.chars().all(|c| usual(c) || c == '-' || c == '.')
    };
    if !is_name(&name) || !is_name(&namespace) {
        return Err(document.error("use lower-case letters, digits and '-'").at("metadata.name"));
    }
    Ok((kind, namespace, name))
}

/// Kubernetes' own rule; it makes a key the name of a file.
fn is_key(key: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !key.is_empty()
        && key.len() <= 253
        && key.chars().all(usual)
        && key != "."
        && !key.starts_with("..")
}

/// The objects, as one pod of a document refers to them.
struct Scope<'a> {
    objects: &'a Objects,
    document: &'a Document,
    namespace: &'a str,
}

impl Scope<'_> {
    fn find(
        &self,
        kind: &'static str,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&Data>, Error> {
        let key = (kind, self.namespace.to_owned(), name.to_owned());
        match self.objects.data.get(&key) {
            None if optional != Some(true) => Err(self.missing(kind, name)),
            found => Ok(found),
        }
    }

    fn missing(&self, kind: &str, name: &str) -> Error {
        let namespace = self.namespace;
        let cause = format!(
            "there is no {kind} \"{name}\" of namespace {namespace} in the manifests: add it"
        );
        self.document.error(cause)
    }

    /// What comes from objects comes first, in its order: what the container says itself counts more.
    fn environment(&self, container: &mut Container) -> Result<(), Error> {
        let mut all = Vec::new();
        for from in container.env_from.take().into_iter().flatten() {
            let map = from.config_map_ref.map(|map| (CONFIG_MAP, map.name, map.optional));
            let secret = from.secret_ref.map(|secret| (SECRET, secret.name, secret.optional));
            let prefix = from.prefix.unwrap_or_default();
            for (kind, name, optional) in map.into_iter().chain(secret) {
                for (key, value) in self.find(kind, &name, optional)?.into_iter().flatten() {
                    all.push(self.variable(format!("{prefix}{key}"), kind, &name, value)?);
                }
            }
        }
        for variable in container.env.take().into_iter().flatten() {
            all.extend(self.resolved(variable)?);
        }
        container.env = (!all.is_empty()).then_some(all);
        Ok(())
    }

    /// The variable with its value, or none where it need not be.
    fn resolved(&self, variable: EnvVar) -> Result<Option<EnvVar>, Error> {
        let Some(from) = &variable.value_from else { return Ok(Some(variable)) };
        let map = from
            .config_map_key_ref
            .as_ref()
            .map(|map| (CONFIG_MAP, &map.name, &map.key, map.optional));
        let secret = from
            .secret_key_ref
            .as_ref()
            .map(|secret| (SECRET, &secret.name, &secret.key, secret.optional));
        let Some((kind, name, key, optional)) = map.or(secret) else { return Ok(Some(variable)) };
        match self.find(kind, name, optional)?.map(|data| data.get(key)) {
            Some(Some(value)) => self.variable(variable.name.clone(), kind, name, value).map(Some),
            Some(None) if optional != Some(true) => {
                Err(self.document.error(format!("{kind} \"{name}\" has no key \"{key}\"")))
            }
            _ => Ok(None),
        }
    }

    /// A value from an object is taken as it is: `$(NAME)` in it means nothing.
    fn variable(
        &self,
        variable: String,
        kind: &str,
        name: &str,
        value: &[u8],
    ) -> Result<EnvVar, Error> {
        let text = std::str::from_utf8(value).map_err(|_| {
            self.document
                .error(format!("{kind} \"{name}\": the value for variable {variable} is no text"))
        })?;
        Ok(EnvVar { name: variable, value: Some(text.replace('$', "$$")), value_from: None })
    }

    /// A volume that is an object becomes a folder of this machine with its content.
    fn volume(&self, volume: &mut Volume, place: &Path) -> Result<()> {
        let map =
            volume.config_map.take().map(|map| (CONFIG_MAP, map.name, map.items, map.optional));
        let secret = volume.secret.take();
        let secret =
            secret.map(|it| (SECRET, it.secret_name.unwrap_or_default(), it.items, it.optional));
        if let Some((kind, name, items, optional)) = map.or(secret) {
            let files = self.files(kind, &name, items, optional)?;
            write(place, &files)?;
            volume.host_path = Some(host_path(place));
        }
        if let Some(claim) = volume.persistent_volume_claim.take() {
            let key = (CLAIM, self.namespace.to_owned(), claim.claim_name.clone());
            let Some(place) = self.objects.claims.get(&key) else {
                return Err(self.missing(CLAIM, &claim.claim_name).into());
            };
            folder(place, 0o777)?;
            volume.host_path = Some(host_path(place));
        }
        Ok(())
    }

    fn files(
        &self,
        kind: &'static str,
        name: &str,
        items: Option<Vec<KeyToPath>>,
        optional: Option<bool>,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let data = self.find(kind, name, optional)?.cloned().unwrap_or_default();
        let Some(items) = items.filter(|items| !items.is_empty()) else { return Ok(data) };
        let mut files = BTreeMap::new();
        for item in items {
            if !item.path.split('/').all(is_key) {
                let cause = format!("{kind} \"{name}\": {:?} is no path in a volume", item.path);
                return Err(self.document.error(cause));
            }
            match data.get(&item.key) {
                Some(value) => _ = files.insert(item.path, value.clone()),
                None if optional == Some(true) => {}
                None => {
                    let cause = format!("{kind} \"{name}\" has no key \"{}\"", item.key);
                    return Err(self.document.error(cause));
                }
            }
        }
        Ok(files)
    }
}

fn host_path(place: &Path) -> HostPathVolumeSource {
    HostPathVolumeSource { path: place.display().to_string(), type_: Some("Directory".to_owned()) }
}

/// Nobody but this user reaches the folder; the pod does by its mount.
fn write(place: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    folder(place, 0o755)?;
    for (name, content) in files {
        let path = place.join(name);
        if let Some(above) = path.parent().filter(|above| *above != place) {
            folder(above, 0o755)?;
        }
        let wrote = fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)));
        wrote.with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn folder(place: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(place)
        .and_then(|()| fs::set_permissions(place, Permissions::from_mode(mode)))
        .with_context(|| format!("make folder {}", place.display()))
}

#[cfg(test)]
mod tests {
    use nodule_manifest::read;

    use super::*;

    const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {A: one, b.txt: '$(A) $$'}\n---\n\
        apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {P: aGVsbG8=}\nstringData: {Q: plain}\n---\n\
        apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c}\nspec: {}\n---\n";

    fn written(folder: &Path, container: &str, volumes: &str) -> Result<Pod> {
        let text = format!(
            "{OBJECTS}apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: default}}\n\
            spec:\n  containers:\n  - {{name: a, image: i, {container}}}\n  volumes: [{volumes}]\n"
        );
        let documents = read("f", &text)?;
        let Object::Pod(pod) = &documents[3].object else { panic!("a pod") };
        let mut pod = Pod::clone(pod);
        Objects::of(&documents, folder)?.write_into(&documents[3], &mut pod)?;
        Ok(pod)
    }

    #[test]
    fn variables_have_their_values_and_those_of_the_container_count_more() {
        let folder = tempfile::tempdir().unwrap();
        let pod = written(
            folder.path(),
            "envFrom: [{prefix: X_, configMapRef: {name: m}}, {secretRef: {name: none, optional: true}}], \
             env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: P}}}, {name: B, value: $(P)}, \
             {name: M, valueFrom: {configMapKeyRef: {name: m, key: none, optional: true}}}]",
            "",
        )
        .unwrap();
        let env = pod.spec.unwrap().containers[0].env.clone().unwrap();
        let pairs: Vec<_> =
            env.iter().map(|one| (one.name.as_str(), one.value.as_deref().unwrap())).collect();
        let expected = [("X_A", "one"), ("X_b.txt", "$$(A) $$$$"), ("P", "hello"), ("B", "$(P)")];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn volumes_become_folders_with_the_content_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = "{name: m, configMap: {name: m, items: [{key: A, path: d/one}]}}, {name: s, secret: {secretName: s}}, \
            {name: c, persistentVolumeClaim: {claimName: c}}";
        let path = |pod: &Pod, at: usize| {
            PathBuf::from(
                pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[at]
                    .host_path
                    .clone()
                    .unwrap()
                    .path,
            )
        };
        let pod = written(folder.path(), "args: []", volumes).unwrap();
        assert_eq!(fs::read_to_string(path(&pod, 0).join("d/one")).unwrap(), "one");
        assert_eq!(fs::read_to_string(path(&pod, 1).join("P")).unwrap(), "hello");
        fs::write(path(&pod, 2).join("kept"), "").unwrap();
        let again = written(folder.path(), "args: []", volumes).unwrap();
        assert_ne!(path(&again, 1), path(&pod, 1));
        assert!(path(&again, 2).join("kept").exists());
        let age = std::time::SystemTime::now() - 2 * OLD;
        for entry in fs::read_dir(contents(folder.path())).unwrap() {
            fs::File::open(entry.unwrap().path()).unwrap().set_modified(age).unwrap();
        }
        sweep(folder.path(), std::slice::from_ref(&again));
        assert!(path(&again, 1).exists() && !path(&pod, 1).exists());
    }

    #[test]
    fn secrets_for_images_are_taken_from_the_manifests() {
        let folder = tempfile::tempdir().unwrap();
        let text = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ntype: kubernetes.io/dockerconfigjson\n\
                 stringData: {{.dockerconfigjson: '{{}}'}}\n---\napiVersion: v1\nkind: Pod\n\
                 metadata: {{name: p, namespace: default}}\n\
                 spec: {{containers: [{{name: a, image: i}}], imagePullSecrets: [{{name: {name}}}]}}\n"
            )
        };
        let logins = |name: &str| {
            let documents = read("f", &text(name)).unwrap();
            let Object::Pod(pod) = &documents[1].object else { panic!("a pod") };
            let mut pod = Pod::clone(pod);
            let objects = Objects::of(&documents, folder.path()).unwrap();
            let logins = objects.take_logins(&documents[1], &mut pod);
            assert_eq!(pod.spec.unwrap().image_pull_secrets, None);
            logins
        };
        assert_eq!(logins("s").unwrap(), ["{}"]);
        let error = logins("t").unwrap_err().to_string();
        assert!(error.contains("there is no Secret \"t\""), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (container, volumes, part) in [
            ("envFrom: [{secretRef: {name: x}}]", "", "document 4: there is no Secret \"x\""),
            (
                "env: [{name: A, valueFrom: {configMapKeyRef: {name: m, key: x}}}]",
                "",
                "no key \"x\"",
            ),
            ("args: []", "{name: v, configMap: {name: x}}", "there is no ConfigMap \"x\""),
            (
                "args: []",
                "{name: v, persistentVolumeClaim: {claimName: x}}",
                "no PersistentVolumeClaim \"x\"",
            ),
            (
                "args: []",
                "{name: v, configMap: {name: m, items: [{key: A, path: ../x}]}}",
                "no path in a volume",
            ),
        ] {
            let error = written(folder.path(), container, volumes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {../x: a}\n";
        let error =
            Objects::of(&read("f", text).unwrap(), folder.path()).err().unwrap().to_string();
        assert!(error.contains("field \"data.../x\""), "{error}");
    }
}
