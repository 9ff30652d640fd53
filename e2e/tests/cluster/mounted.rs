//! Images that are volumes: from a real registry through a real API server to a guest that reads them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::push::{Blob, Image, MANIFEST, Registry, sha256};
use nodule_e2e::test::{self, Test};
use nodule_e2e::{paths, status};
use serde_json::{Value, json};

/// Pushes an ordinary Linux image of two layers, whose upper one replaces a file of the lower one.
async fn push_data(registry: &Registry, tag: &str, text: &str) -> Result<String> {
    let (mut diffs, mut layers) = (Vec::new(), Vec::new());
    for files in [[("etc/motd", "old"), ("etc/kept", "kept")], [("etc/motd", text), ("new", "")]] {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(u64::try_from(content.len())?);
            header.set_mode(0o600);
            archive.append_data(&mut header, path, content.as_bytes())?;
        }
        let archive = archive.into_inner()?;
        diffs.push(sha256(&archive));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&archive)?;
        layers.push(Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", encoder.finish()?));
    }
    let config = json!({ "os": "linux", "architecture": "amd64",
                         "rootfs": { "type": "layers", "diff_ids": diffs } });
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = Blob::new(kind, config.to_string().into_bytes());
    registry.push(&format!("tests/data:{tag}"), &Image { config, layers }).await
}

/// Pushes an artifact of a kind that nobody knows, one of its two files in a folder.
async fn push_model(registry: &Registry) -> Result<String> {
    let file = |title: &str, content: &str| {
        let mut blob = Blob::new("application/vnd.example.model", content.as_bytes().to_vec());
        blob.descriptor["annotations"] = json!({ "org.opencontainers.image.title": title });
        blob
    };
    let config = Blob::new("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let layers = vec![file("card.txt", "a model"), file("deep/weights.txt", "0.5")];
    let image = Image { config, layers };
    registry.push("tests/model:parts", &image).await?;
    let mut manifest: Value = serde_json::from_slice(&image.manifest())?;
    manifest["artifactType"] = json!("application/vnd.example.model");
    registry.push_manifest("tests/model:1", MANIFEST, manifest.to_string().into_bytes()).await
}

fn container(test: &Test<'_>, name: &str, arguments: &[&str], mounts: &Value) -> Value {
    let mut container = test.spec(arguments)["containers"][0].clone();
    container["name"] = json!(name);
    container["volumeMounts"] = mounts.clone();
    container
}

/// An operator cannot take away what a pod has mounted, with an agent or without.
fn keeps(test: &Test<'_>) -> Result<()> {
    let image = test.image("tests/data:moved");
    let mut command = Command::new(paths::program("nodule")?);
    command.args(["image", "--node", "rm", &image]).stdin(Stdio::null());
    for (flag, file) in [("root-dir", "root"), ("run-dir", "run"), ("config", "config.yaml")] {
        command.arg(format!("--{flag}={}", test.agent.file(file).display()));
    }
    let output = command.output().context("run nodule image rm")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && why.contains("used by a pod"), "it is removed: {why}");
    Ok(())
}

async fn volumes(registry: &Registry, tag: &str) -> Result<Value> {
    let (data, model) = (push_data(registry, tag, "hello").await?, push_model(registry).await?);
    Ok(json!([{ "name": "data", "image": { "reference": data, "pullPolicy": "Always" } },
              { "name": "model", "image": { "reference": model } }]))
}

#[tokio::test]
async fn images_and_artifacts_are_read_as_volumes_and_never_written() -> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&[]);
        spec["restartPolicy"] = json!("Never");
        spec["volumes"] = volumes(test.cluster.registry(), "read").await?;
        let data = json!([{ "name": "data", "mountPath": "/data", "readOnly": false }]);
        let part = json!([{ "name": "model", "mountPath": "/part", "subPath": "deep" }]);
        let file = json!([{ "name": "model", "mountPath": "/one/card", "subPath": "card.txt" }]);
        let commands: [(&str, &[&str], &Value, Option<&str>); 5] = [
            ("data", &["read", "/data/etc/motd"], &data, Some("hello")),
            ("part", &["read", "/part/weights.txt"], &part, Some("0.5")),
            ("file", &["read", "/one/card"], &file, Some("a model")),
            ("change", &["write", "/data/etc/motd", "x"], &data, None),
            ("make", &["write", "/part/more", "x"], &part, None),
        ];
        let containers =
            commands.map(|(name, command, mounts, _)| container(test, name, command, mounts));
        spec["containers"] = json!(containers);
        test.pod("it", spec).await?;

        let is_over = |pod: &Pod| ["Succeeded", "Failed"].contains(&status::phase(pod));
        let pod = test.pod_until("it", "to end", is_over).await?;

        for (name, _, mounts, says) in commands {
            let log = test.kubectl(&["logs", "it", "-c", name])?;
            let status = status::container(&pod, name).context("a status")?;
            let end = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            let code = end.context("an end")?.exit_code;
            match says {
                Some(text) => ensure!(code == 0 && log.trim() == text, "{name}: {code} {log}"),
                None => ensure!(code == 1 && log.contains("probe: "), "{name}: {code} {log}"),
            }
            let shown = status.volume_mounts.iter().flatten().next().context("a mount")?;
            ensure!(json!(shown.mount_path) == mounts[0]["mountPath"], "{name}: {shown:?}");
        }
        let events = test.kubectl(&["get", "events", "-o", "custom-columns=:reason,:message"])?;
        ensure!(
            events.contains("Successfully pulled image") && events.contains("/tests/model:1"),
            "{events}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_keeps_its_image_over_runs_and_agents_though_the_tag_has_moved() -> Result<()> {
    test::run(async |test| {
        let mut spec = test.spec(&["read", "/data/etc/motd"]);
        spec["volumes"] = volumes(test.cluster.registry(), "moved").await?;
        spec["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
        test.pod("it", spec).await?;
        test.pod_until("it", "to run again", |pod| status::restarts(pod) > 0).await?;
        keeps(test)?;
        test.agent.kill()?;
        keeps(test)?;
        push_data(test.cluster.registry(), "moved", "another").await?;
        test.agent.start_again()?;

        let before = 1;
        let pod = test.pod_until("it", "to run once more", |pod| status::restarts(pod) > before);
        pod.await?;
        let ended = |pod: &Pod| {
            let last = status::container(pod, "main").and_then(|status| status.last_state.as_ref());
            status::restarts(pod) > before && last.is_some_and(|last| last.terminated.is_some())
        };
        test.pod_until("it", "to have run", ended).await?;
        ensure!(test.kubectl(&["logs", "it", "--previous"])?.trim() == "hello");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_artifact_whose_files_lead_out_of_the_volume_is_refused_by_name() -> Result<()> {
    test::run(async |test| {
        let mut layer = Blob::new("application/vnd.example.model", b"evil".to_vec());
        layer.descriptor["annotations"] =
            json!({ "org.opencontainers.image.title": "../../escape" });
        let config = Blob::new("application/vnd.oci.empty.v1+json", b"{}".to_vec());
        let image = Image { config, layers: vec![layer] };
        let evil = test.cluster.registry().push("tests/evil:1", &image).await?;
        let mut spec = test.spec(&["show"]);
        spec["volumes"] = json!([{ "name": "evil", "image": { "reference": evil } }]);
        spec["containers"][0]["volumeMounts"] = json!([{ "name": "evil", "mountPath": "/v" }]);
        test.pod("it", spec).await?;
        let stuck = |pod: &Pod| {
            let reason = status::waiting(pod).and_then(|waiting| waiting.reason.as_deref());
            reason == Some("ImagePullBackOff")
        };
        let pod = test.pod_until("it", "to wait for its volume", stuck).await?;
        let message = status::waiting(&pod).and_then(|waiting| waiting.message.clone());
        let message = message.unwrap_or_default();
        ensure!(message.contains("\"../../escape\" leads out"), "{message}");
        Ok(())
    })
    .await
}
