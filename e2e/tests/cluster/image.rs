//! Images that cannot be had or must not be run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use nodule_e2e::layout::PRIVATE_REGISTRY;
use nodule_e2e::push::{Image, Packaging, sha256};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;

use crate::guests::ALONE;

/// Pods that want the same image.
const PODS: usize = 20;

/// Makes a pod of this image and gives back why it waits, once it waits for its image.
async fn refused(test: &Test<'_>, name: &str, image: &str) -> Result<(String, String)> {
    let mut spec = test.spec(&[]);
    spec["containers"][0]["image"] = json!(image);
    test.pod(name, spec).await?;
    why(test, name).await
}

async fn why(test: &Test<'_>, name: &str) -> Result<(String, String)> {
    let beginning = ["ContainerCreating", "PodInitializing"];
    let stuck = |pod: &Pod| {
        let waiting = status::waiting(pod);
        waiting
            .and_then(|waiting| waiting.reason.as_deref())
            .is_some_and(|reason| !beginning.contains(&reason))
    };
    let pod = test.pod_until(name, "to wait for its image", stuck).await?;
    let waiting = status::waiting(&pod).cloned().context("waiting")?;
    Ok((waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
}

/// A program that is in the registry once, under its own digest.
fn program(number: u8) -> Result<Image> {
    let mut content = wat::parse_str(ALONE)?;
    // A custom section (id 0) of five bytes: a name of one byte, and three of content.
    content.extend([0, 5, 1, b'n', number, number, number]);
    Ok(Image::of_program(Packaging::Cncf, content))
}

fn digest(image: &Image) -> Result<String> {
    Ok(sha256(&image.layers.first().context("a layer")?.content))
}

#[tokio::test]
async fn a_blob_that_is_not_what_its_digest_says_is_refused_and_not_kept() -> Result<()> {
    test::run(async |test| {
        let registry = test.cluster.registry();
        for (number, name, says) in [(1, "tampered", "digest"), (2, "truncated", "bytes")] {
            let image = program(number)?;
            let reference = registry.push(&format!("tests/{name}:1"), &image).await?;
            registry.tamper(&digest(&image)?, |content| match name {
                "tampered" => content.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1),
                _ => content.truncate(content.len() / 2),
            })?;
            let (reason, message) = refused(test, name, &reference).await?;
            assert!(
                ["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()),
                "{name}: {reason}"
            );
            assert!(message.contains(says), "{name}: {message}");
            let hex = digest(&image)?.replace("sha256:", "");
            assert!(!is_there(&test.agent.file("root"), &hex)?, "{name}: something of it was kept");
        }
        assert_eq!(test.agent.sandboxes(), [], "nothing of it runs");
        Ok(())
    })
    .await
}

/// Whether a file of this name is in the folder or below it.
fn is_there(folder: &Path, name: &str) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let below = entry.file_type()?.is_dir() && is_there(&entry.path(), name)?;
        if below || entry.file_name().to_string_lossy().starts_with(name) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test]
async fn pods_of_one_new_image_download_it_once() -> Result<()> {
    test::run(async |test| {
        let image = program(3)?;
        let reference = test.cluster.registry().push("tests/shared:1", &image).await?;
        for number in 0..PODS {
            let mut spec = test.spec(&[]);
            spec["containers"][0]["image"] = json!(reference);
            spec["restartPolicy"] = json!("Never");
            test.pod(&format!("pod-{number}"), spec).await?;
        }
        let all = |pods: &[Pod]| {
            pods.iter().filter(|pod| status::terminated(pod).is_some()).count() == PODS
        };
        test.pods_until("", "all to end", all).await?;
        let log = test.cluster.log("registry")?;
        let get = format!("\"GET /v2/tests/shared/blobs/{} ", digest(&image)?);
        assert_eq!(log.matches(&get).count(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() -> Result<()> {
    test::run(async |test| {
        let nobody = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        let cases = [
            ("unknown", test.image("examples/nothing:1"), "no such image"),
            ("digest", test.image(&format!("examples/probe@{nobody}")), "no such image"),
            ("registry", "127.0.0.1:1/examples/probe:p1".to_owned(), "connect"),
        ];
        for (name, image, says) in cases {
            let (reason, message) = refused(test, name, &image).await?;
            let known = ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"];
            assert!(known.contains(&reason.as_str()), "{name}: {reason}");
            assert!(message.contains(says), "{name}: {message}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_no_runnable_wasm_is_refused() -> Result<()> {
    test::run(async |test| {
        let registry = test.cluster.registry();
        let linux = registry.push("tests/linux:1", &Image::of_linux()).await?;
        let (reason, message) = refused(test, "linux", &linux).await?;
        assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
        assert!(message.to_lowercase().contains("wasm"), "{message}");
        // The magic number and the version of a module, and then no section.
        let broken = b"\0asm\x01\0\0\0\xff\xff\xff".to_vec();
        let broken =
            registry.push("tests/broken:1", &Image::of_program(Packaging::Cncf, broken)).await?;
        let (reason, message) = refused(test, "broken", &broken).await?;
        assert!(!message.is_empty(), "{reason}");
        assert_eq!(test.agent.sandboxes(), [], "nothing of it runs");
        Ok(())
    })
    .await
}

/// A pull secret for the private registry, with this entry.
async fn secret(test: &Test<'_>, name: &str, entry: serde_json::Value) -> Result<()> {
    let host = test.cluster.private_registry().host.as_str();
    let config = json!({ "auths": { host: entry } }).to_string();
    let secret = json!({
        "metadata": { "name": name },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config },
    });
    test.create::<Secret>(secret).await.map(drop)
}

/// A pod of the private image, which shows its own password, also where the image is there already.
async fn private(test: &Test<'_>, name: &str, secrets: &[&str]) -> Result<()> {
    let host = test.cluster.private_registry().host.as_str();
    let mut spec = test.spec(&["lines", "0", "1000"]);
    spec["containers"][0]["image"] = json!(format!("{host}/examples/probe:p1"));
    spec["containers"][0]["imagePullPolicy"] = json!("Always");
    let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
    spec["imagePullSecrets"] = json!(secrets);
    test.pod(name, spec).await.map(drop)
}

#[tokio::test]
async fn a_private_image_needs_the_right_password() -> Result<()> {
    test::run(async |test| {
        let (user, right) = PRIVATE_REGISTRY;
        for (name, password) in [("right", right), ("wrong", "wrong-password")] {
            let login = STANDARD.encode(format!("{user}:{password}"));
            secret(test, name, json!({ "auth": login })).await?;
            private(test, name, &[name]).await?;
        }
        test.pod_until("right", "to run", |pod| status::running(pod).is_some()).await?;
        let (reason, message) = why(test, "wrong").await?;
        assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
        assert!(message.contains("imagePullSecrets"), "{message}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn all_pull_secrets_are_tried_and_those_that_are_missing_or_broken_are_told() -> Result<()> {
    test::run(async |test| {
        let (user, right) = PRIVATE_REGISTRY;
        secret(test, "wrong", json!({ "username": user, "password": "wrong-password" })).await?;
        secret(test, "right", json!({ "username": user, "password": right })).await?;
        secret(test, "broken", json!({ "auth": "no colon" })).await?;
        private(test, "several", &["gone", "wrong", "away", "right"]).await?;
        private(test, "stuck", &["right", "broken"]).await?;

        test.pod_until("several", "to run", |pod| status::running(pod).is_some()).await?;
        let words = "Unable to retrieve some image pull secrets (gone, away); attempting to pull the image may not succeed.";
        let told = |events: &[Event]| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some("FailedToRetrieveImagePullSecret")
                    && event.message.as_deref().is_some_and(|message| message.starts_with(words))
            })
        };
        wait::until(test.api::<Event>(), wait::all(), "what is missing to be told", told).await?;
        let (reason, message) = why(test, "stuck").await?;
        assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
        assert!(message.contains("image pull secret \"broken\""), "{message}");
        Ok(())
    })
    .await
}
