//! Credentials for images: Secrets of the manifests, and the logins of whoever runs the command. The agent in the background has
//! them for one pull, and keeps none.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use nodule_image::{Keyring, Reference};
use serde_json::{Value, json};

use super::manifest::local;
use super::pods::images;
use crate::image::credentials;

/// A Secret's credentials as a docker configuration; none if it has none, as with the kubelet.
pub(crate) fn of_secret(data: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    if let Some(config) = data.get(".dockerconfigjson") {
        return String::from_utf8(config.clone()).ok();
    }
    // The older form is the inside of the newer one.
    let auths: Value = serde_json::from_slice(data.get(".dockercfg")?).ok()?;
    Some(json!({ "auths": auths }).to_string())
}

/// What docker and podman know for the images of pods, a docker configuration for each registry.
pub(crate) async fn of_user(pods: &[Pod]) -> Result<Vec<String>> {
    let named = pods.iter().flat_map(images).filter(|image| local(image).is_none());
    // What is no name is told by the pod.
    let references = named.filter_map(|image| Reference::parse(image).ok());
    let registries: BTreeMap<String, Reference> =
        references.map(|image| (image.registry().to_owned(), image)).collect();
    let mut known = Vec::new();
    for image in registries.values() {
        known.push(credentials(image).await?);
    }
    Ok(known)
}

/// All of these, those that come first before the others.
pub(crate) fn keyring(configs: &[String]) -> Result<Keyring> {
    let mut keyring = Keyring::default();
    for config in configs {
        let data = [(".dockerconfigjson", config.as_bytes())];
        let added = keyring.add_secret("kubernetes.io/dockerconfigjson", data);
        added.context("read credentials of images")?;
    }
    Ok(keyring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_both_types_open_images() {
        let auths = r#"{"a.io":{"auth":"eDp5"}}"#;
        for (key, content) in [
            (".dockercfg", auths.to_owned()),
            (".dockerconfigjson", format!("{{\"auths\":{auths}}}")),
        ] {
            let data = BTreeMap::from([(key.to_owned(), content.into_bytes())]);
            let keyring = keyring(&[of_secret(&data).unwrap()]).unwrap();
            assert!(keyring.opens(&Reference::parse("a.io/x").unwrap()), "{key}");
        }
        assert_eq!(of_secret(&BTreeMap::from([("other".to_owned(), Vec::new())])), None);
        assert!(keyring(&["{".to_owned()]).is_err());
    }
}
