//! What a container gets of its pod's volumes: pure.

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use nodule_sandbox_proto::{Access, Mount};

use super::{Volumes, volume};
use crate::env::Environment;

/// The container's mounts, in the order of the spec; or what is wrong with one.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    volumes: &Volumes,
    env: &Environment,
) -> Result<Vec<Mount>, String> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts.map(|mount| one(pod, mount, volumes, env)).collect()
}

fn one(
    pod: &Pod,
    mount: &VolumeMount,
    volumes: &Volumes,
    env: &Environment,
) -> Result<Mount, String> {
    let missing =
        || format!("cannot find volume \"{}\" to mount at \"{}\"", mount.name, mount.mount_path);
    let host = volumes.get(&mount.name).ok_or_else(missing)?.clone();
    let source = volume(pod, &mount.name).ok_or_else(missing)?;
    let only = mount.read_only == Some(true) || is_read_only(source);
    if let Some(propagation @ "Bidirectional") = mount.mount_propagation.as_deref() {
        return Err(format!(
            "volumeMount \"{}\": mountPropagation {propagation} is not possible: a guest mounts nothing; use HostToContainer",
            mount.mount_path
        ));
    }
    Ok(Mount {
        host,
        sub_path: sub_path(mount, env)?,
        guest: mount.mount_path.clone(),
        access: if only { Access::ReadOnly } else { Access::ReadWrite },
    })
}

/// How many of the container's mounts are of images.
pub(crate) fn image_mounts(pod: &Pod, container: &Container) -> usize {
    let mounts = container.volume_mounts.iter().flatten();
    let is_image = |mount: &&VolumeMount| {
        volume(pod, &mount.name).is_some_and(|volume| volume.image.is_some())
    };
    mounts.filter(is_image).count()
}

/// What the agent writes, nobody else does; and an image's files are those of all who use it.
fn is_read_only(volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref();
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
        || volume.image.is_some()
        || claim.is_some_and(|claim| claim.read_only == Some(true))
}

/// In the kubelet's words where something is wrong with it.
fn sub_path(mount: &VolumeMount, env: &Environment) -> Result<Option<String>, String> {
    let expression = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty());
    let path = match expression {
        Some(text) => {
            env.expand_path(text).map_err(|name| format!("missing value for \"{name}\""))?
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path).filter(|path| !path.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::env::{Sources, environment};
    use crate::field::Downward;
    use crate::objects::Known;
    use crate::service::Services;

    fn made(mount: &Value) -> Result<Mount, String> {
        let container = json!({"name": "c", "volumeMounts": [mount], "env": [
            {"name": "NAME", "value": "a"}, {"name": "UP", "value": ".."}, {"name": "EMPTY", "value": ""}]});
        let pod = json!({"metadata": {}, "spec": {"containers": [container], "volumes": [
            {"name": "data", "emptyDir": {}}, {"name": "map", "configMap": {"name": "m"}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let allocatable = BTreeMap::new();
        let sources = Sources {
            downward: Downward { pod: &pod, node: "", addresses: &[], allocatable: &allocatable },
            hostname: "",
            image: &[],
            known: &Known::default(),
            services: Some(&Services::default()),
            file: &|_| Ok(None),
        };
        let env = environment(container, &sources).unwrap();
        let names = ["data", "map", "claim"];
        let volumes = names.map(|name| (name.to_owned(), format!("/v/{name}").into())).into();
        mounts(&pod, container, &volumes, &env).map(|mut mounts| mounts.remove(0))
    }

    #[test]
    fn what_may_be_written_is_for_the_mount_and_its_volume_to_say() {
        for (mount, access) in [
            (json!({"name": "data"}), Access::ReadWrite),
            (json!({"name": "data", "readOnly": true}), Access::ReadOnly),
            (json!({"name": "map"}), Access::ReadOnly),
            (json!({"name": "claim"}), Access::ReadOnly),
        ] {
            let mut mount = mount;
            mount["mountPath"] = json!("/here");
            let made = made(&mount).unwrap();
            assert_eq!((made.access, made.guest.as_str()), (access, "/here"), "{mount}");
        }
    }

    #[test]
    fn a_sub_path_is_expanded_and_stays_within_its_volume() {
        let path = |field: &str, text: &str| {
            made(&json!({"name": "data", "mountPath": "/d", field: text})).map(|made| made.sub_path)
        };
        assert_eq!(path("subPath", "a/b"), Ok(Some("a/b".to_owned())));
        assert_eq!(path("subPath", ""), Ok(None));
        assert_eq!(path("subPathExpr", "x/$(NAME)"), Ok(Some("x/a".to_owned())));
        for (field, text, words) in [
            ("subPathExpr", "$(NONE)", "missing value for \"NONE\""),
            ("subPathExpr", "$(EMPTY)", "missing value for \"EMPTY\""),
            ("subPathExpr", "$(UP)/x", "must not contain '..'"),
            ("subPath", "/etc", "error SubPath `/etc` must not be an absolute path"),
        ] {
            let error = path(field, text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = made(&json!({"name": "none", "mountPath": "/d"})).unwrap_err();
        assert_eq!(error, "cannot find volume \"none\" to mount at \"/d\"");
        let both = json!({"name": "data", "mountPath": "/d", "mountPropagation": "Bidirectional"});
        assert!(
            made(&both).unwrap_err().contains("mountPropagation Bidirectional is not possible")
        );
    }
}
