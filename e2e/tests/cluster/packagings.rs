//! Every way in which Wasm is packed, pulled from a real registry by a real pod.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::paths;
use nodule_e2e::push::{Blob, Image, MANIFEST, Registry, sha256};
use nodule_e2e::status;
use nodule_e2e::test::{self, Test};
use serde_json::{Value, json};

const OCI: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER: &str = "application/vnd.docker.container.image.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LEGACY: &str = "application/vnd.wasm.content.layer.v1+wasm";
const SOLO: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const SOLO_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
const RUNWASI: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";

pub(crate) fn guest(name: &str) -> Result<Vec<u8>> {
    let path = paths::guest(name)?;
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// An image of blobs, each by its type and content.
fn image(config: (&str, Vec<u8>), layers: Vec<(&str, Vec<u8>)>) -> Image {
    let layers = layers.into_iter().map(|(kind, content)| Blob::new(kind, content)).collect();
    Image { config: Blob::new(config.0, config.1), layers }
}

/// A layer of files: the archive, and what it is compressed.
fn layer(files: &[(&str, &[u8])]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(content.len())?);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *content)?;
    }
    let archive = archive.into_inner()?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&archive)?;
    Ok((archive, encoder.finish()?))
}

/// A container image of the probe and a text, for this platform.
fn rooted(kind: &str, (os, architecture): (&str, &str), config: &Value) -> Result<Image> {
    let files = [("bin/probe.wasm", &*guest("probe.p1.wasm")?), ("etc/motd", b"hello")];
    let (archive, layer) = layer(&files)?;
    let config = json!({ "os": os, "architecture": architecture, "config": config,
                         "rootfs": { "type": "layers", "diff_ids": [sha256(&archive)] } });
    Ok(image((kind, config.to_string().into_bytes()), vec![(TAR, layer)]))
}

/// Pushes what `docker buildx` makes: an index with an entry for Linux, one for Wasm, and one that attests.
async fn push_index(registry: &Registry, name: &str, wasm: &Image) -> Result<String> {
    let linux = Image::of_linux();
    registry.push(&format!("{name}:linux"), &linux).await?;
    registry.push(&format!("{name}:wasm"), wasm).await?;
    let entry = |image: &Image, os: &str, architecture: &str| {
        let manifest = image.manifest();
        json!({ "mediaType": MANIFEST, "digest": sha256(&manifest), "size": manifest.len(),
                "platform": { "os": os, "architecture": architecture } })
    };
    let mut attestation = entry(&linux, "unknown", "unknown");
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let entries = [entry(&linux, "linux", "amd64"), attestation, entry(wasm, "wasi", "wasm")];
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    registry.push_manifest(&format!("{name}:1"), INDEX, index.to_string().into_bytes()).await
}

/// Makes a pod of one container and waits until it has ended, or waits for a person.
pub(crate) async fn ended(
    test: &Test<'_>,
    name: &str,
    image: &str,
    container: &Value,
) -> Result<Pod> {
    let mut spec = test.spec(&[]);
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["image"] = json!(image);
    for (key, value) in container.as_object().into_iter().flatten() {
        spec["containers"][0][key] = value.clone();
    }
    test.pod(name, spec).await?;
    let is_over = |pod: &Pod| {
        let reason = status::waiting(pod).and_then(|waiting| waiting.reason.clone());
        let beginning = ["ContainerCreating", "PodInitializing"];
        status::terminated(pod).is_some()
            || reason.is_some_and(|reason| !beginning.contains(&reason.as_str()))
    };
    test.pod_until(name, "to end or to be refused", is_over).await
}

/// [`ended`], with success, having said this.
pub(crate) async fn says(
    test: &Test<'_>,
    name: &str,
    image: &str,
    container: &Value,
    words: &str,
) -> Result<()> {
    let pod = ended(test, name, image, container).await?;
    let code = status::terminated(&pod).map(|end| end.exit_code);
    ensure!(code == Some(0), "{name}: {:?}", pod.status);
    let log = test.kubectl(&["logs", name])?;
    ensure!(log.contains(words), "{name}: {log}");
    Ok(())
}

/// Images that run, and with which words.
fn runnable() -> Result<Vec<(&'static str, Image, Value)>> {
    let (module, component) = (guest("probe.p1.wasm")?, guest("probe.p2.wasm")?);
    let runwasi = json!({ "os": "wasip1", "architecture": "wasm", "rootfs": { "diff_ids": [] },
                          "config": { "Entrypoint": ["probe.wasm"], "Cmd": ["show"] } });
    let runwasi =
        image((OCI, runwasi.to_string().into_bytes()), vec![(RUNWASI, component.clone())]);
    let entrypoint = json!({ "Entrypoint": ["/bin/probe.wasm"] });
    let docker = rooted(DOCKER, ("wasi", "wasm"), &entrypoint)?;
    let compat = rooted(OCI, ("linux", "amd64"), &json!({ "Cmd": ["probe.wasm", "show"] }))?;
    let empty = |kind| (kind, b"{}".to_vec());
    let krustlet =
        image(empty("application/vnd.wasm.config.v1+json"), vec![(LEGACY, module.clone())]);
    let solo = image(empty(SOLO_CONFIG), vec![(SOLO, module.clone())]);
    let oras = vec![("application/wasm", module)];
    let oras = image(empty("application/vnd.oci.empty.v1+json"), oras);
    let show = json!({ "args": ["show"] });
    Ok(vec![
        ("a-cncf", artifact(component), show.clone()),
        ("b-krustlet", krustlet, show.clone()),
        ("c-runwasi", runwasi, json!({})),
        ("d-docker", docker.clone(), json!({ "args": ["read", "/etc/motd"] })),
        ("d-writable", docker, json!({ "args": ["write", "/etc/motd", "changed"] })),
        ("e-compat", compat, json!({})),
        ("f-solo", solo, show.clone()),
        ("i-oras", oras, show),
    ])
}

#[tokio::test]
async fn every_packaging_that_can_run_runs() -> Result<()> {
    test::run(async |test| {
        let registry = test.cluster.registry();
        let mut pods = Vec::new();
        for (name, image, container) in runnable()? {
            if name == "d-docker" {
                let index = push_index(registry, "packagings/index", &image).await?;
                pods.push(("d-index", index, container.clone()));
            }
            let reference = registry.push(&format!("packagings/{name}:1"), &image).await?;
            pods.push((name, reference, container));
        }
        for (name, reference, container) in pods {
            let words = if container.to_string().contains("read") { "hello" } else { "" };
            says(test, name, &reference, &container, words).await?;
        }
        Ok(())
    })
    .await
}

/// What is pushed, how its container is changed, and two words of the refusal: what it is, and what to do instead.
type Stranger = (&'static str, Image, Value, [&'static str; 2]);

fn artifact(wasm: Vec<u8>) -> Image {
    image(("application/vnd.wasm.config.v0+json", b"{}".to_vec()), vec![("application/wasm", wasm)])
}

/// Plug-ins of other hosts, as artifacts and as images.
fn plugins() -> Result<Vec<Stranger>> {
    let plugin = wat::parse_str(r#"(module (func (export "proxy_abi_version_0_2_1")))"#)?;
    let (archive, files) = layer(&[("plugin.wasm", &plugin)])?;
    let config = json!({ "os": "linux", "architecture": "amd64", "config": {},
                         "rootfs": { "diff_ids": [sha256(&archive)] } });
    let istio = image((OCI, config.to_string().into_bytes()), vec![(TAR, files)]);
    let solo = vec![(SOLO, plugin), (SOLO_CONFIG, b"{}".to_vec())];
    let solo = image((SOLO_CONFIG, b"{}".to_vec()), solo);
    let named = json!({ "command": ["/plugin.wasm"] });
    Ok(vec![
        ("f-plugin", solo, json!({}), ["proxy-wasm", "WASI command"]),
        ("g-image", istio.clone(), json!({}), ["the program", "container's command"]),
        ("g-plugin", istio, named, ["proxy-wasm", "WASI command"]),
    ])
}

/// What other tools push.
fn others() -> Result<Vec<Stranger>> {
    let spin = "application/vnd.fermyon.spin.application.v1+config";
    let spin = vec![(LEGACY, b"\0asm".to_vec()), (spin, b"{}".to_vec())];
    let spin = image((OCI, b"{}".to_vec()), spin);
    let helm = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let helm = vec![(helm, b"{}".to_vec())];
    let helm = image(("application/vnd.cncf.helm.config.v1+json", b"{}".to_vec()), helm);
    let wit = artifact(wat::parse_str("(component (type (component)))")?);
    let policy = wat::parse_str(r#"(module (func (export "__guest_call")))"#)?;
    let policy =
        image(("application/vnd.wasm.config.v1+json", b"{}".to_vec()), vec![(LEGACY, policy)]);
    // What npm has of Ruby is of this kind: it wants a host in JavaScript.
    let reactor =
        r#"(module (import "rb-js-abi-host" "throw" (func)) (func (export "_initialize")))"#;
    let reactor = artifact(wat::parse_str(reactor)?);
    let elf = artifact(b"\x7fELF\x02\x01\x01\0".to_vec());
    Ok(vec![
        ("h-spin", spin, json!({}), ["Spin application", "SpinKube"]),
        ("helm", helm, json!({}), ["Helm chart", "helm install"]),
        ("wit", wit, json!({}), ["WIT package", "publish the component"]),
        ("policy", policy, json!({}), ["Kubewarden", "its own host"]),
        ("reactor", reactor, json!({}), ["Ruby for a JavaScript host", "WASI command"]),
        ("elf", elf, json!({}), ["ELF", "WASI command"]),
        ("linux", Image::of_linux(), json!({}), ["native code", "wasi/wasm"]),
    ])
}

#[tokio::test]
async fn what_cannot_run_is_named_with_what_to_do_instead() -> Result<()> {
    test::run(async |test| {
        let registry = test.cluster.registry();
        for (name, image, container, words) in plugins()?.into_iter().chain(others()?) {
            let reference = registry.push(&format!("packagings/{name}:1"), &image).await?;
            let pod = ended(test, name, &reference, &container).await?;
            let message = status::waiting(&pod).and_then(|waiting| waiting.message.clone());
            let message = message.unwrap_or_default();
            ensure!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
        }
        assert_eq!(test.agent.sandboxes(), [], "nothing of it runs");
        Ok(())
    })
    .await
}
