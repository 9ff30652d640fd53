//! What opens the registry of a pod's image: its pull secrets, and what the node's credential providers give for it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::Api;
use nodule_image::{Identity, Keyring, Reference};

use crate::events::Kind;
use crate::host::Host;
use crate::status::Waiting;
use crate::teller::Teller;
use crate::volumes::token;
use crate::words::chain;

/// The pod's credentials. A secret that is not there is told and skipped; one that does not parse fails the pull.
pub(crate) async fn keyring(host: &Host, teller: &Teller<'_>) -> Result<Keyring, Waiting> {
    let pod = teller.pod;
    // A node that stands alone has no secrets of this kind.
    let Some(client) = host.client.clone() else { return Ok(Keyring::default()) };
    let api: Api<Secret> =
        Api::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default());
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    for name in secrets.map(|secret| secret.name.as_str()).filter(|name| !name.is_empty()) {
        match api.get(name).await {
            Ok(secret) => found.push((name, secret)),
            Err(error) => missing.push((name, error.to_string())),
        }
    }
    if !missing.is_empty() {
        let (names, causes): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed. ({})",
            names.join(", "),
            causes.join("; ")
        );
        teller.say(Kind::Warning, "FailedToRetrieveImagePullSecret", &message);
    }
    let mut keyring = Keyring::default();
    for (name, secret) in found {
        add(&mut keyring, name, secret, teller)?;
    }
    Ok(keyring)
}

fn add(
    keyring: &mut Keyring,
    name: &str,
    secret: Secret,
    teller: &Teller<'_>,
) -> Result<(), Waiting> {
    let of = nodule_image::Secret {
        namespace: secret.metadata.namespace.unwrap_or_default(),
        name: secret.metadata.name.unwrap_or_default(),
        uid: secret.metadata.uid.unwrap_or_default(),
    };
    let data = secret.data.unwrap_or_default();
    let entries = data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    let added =
        keyring.add_secret_of(Some(&of), secret.type_.as_deref().unwrap_or_default(), entries);
    added.map_err(|error| {
        let message = format!("image pull secret \"{name}\": {}", chain(&error));
        teller.fail("Failed", Waiting { reason: "ErrImagePull", message })
    })
}

/// The pod's service account, where a provider for this image wants to know it. The keyring then knows it too.
///
/// A failure is as if the pod had none: providers that need one are passed over, and the reason is told with the pull's.
pub(crate) async fn identity(
    host: &Host,
    pod: &Pod,
    reference: &Reference,
    keyring: &mut Keyring,
) -> Result<Option<Identity>, String> {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or_default();
    let Some(client) = host.client.clone().filter(|_| !name.is_empty()) else { return Ok(None) };
    if !host.images.wants_account(reference) {
        return Ok(None);
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<ServiceAccount> = Api::namespaced(client, &namespace);
    let found = api.get(name).await;
    let found = found.map_err(|error| format!("service account \"{name}\": {}", chain(&error)))?;
    let account = nodule_image::ServiceAccount {
        namespace,
        name: name.to_owned(),
        uid: found.metadata.uid.unwrap_or_default(),
    };
    keyring.set_account(account.clone());
    Ok(Some(Identity { account, annotations: found.metadata.annotations.unwrap_or_default() }))
}

/// Adds what the node's providers give for this image; what went wrong with them.
pub(crate) async fn provide(
    host: &Arc<Host>,
    pod: &Arc<Pod>,
    reference: &Reference,
    keyring: &mut Keyring,
    identity: Option<&Identity>,
) -> Vec<String> {
    let token = |audience: String| {
        let (host, pod) = (Arc::clone(host), Arc::clone(pod));
        async move { token::fresh(&host, &pod, audience).await }
    };
    let failed = host.images.provide(reference, keyring, identity, token).await;
    failed.iter().map(ToString::to_string).collect()
}
