//! Images that go between other people's programs and `nodule image`: in archives, and by a registry.

use std::fs;

use anyhow::{Result, ensure};
use nodule_e2e::test;
use nodule_e2e::tools::Workshop;
use serde_json::{Value, json};

use crate::image_commands::Node;
use crate::packagings::{guest, says};

/// The forms in which buildah and skopeo save an image, and where.
const FORMS: [(&str, &str); 3] =
    [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar"), ("oci", "folder")];

/// Builds an image that prints a text.
fn build(workshop: &Workshop) -> Result<()> {
    workshop.write("context/probe.wasm", guest("probe.p1.wasm")?)?;
    workshop.write("context/motd", "hello")?;
    let containerfile = "FROM scratch\nCOPY probe.wasm /probe.wasm\nCOPY motd /etc/motd\n\
                         ENTRYPOINT [\"/probe.wasm\"]\nCMD [\"read\", \"/etc/motd\"]\n";
    workshop.write("context/Containerfile", containerfile)?;
    let build = ["build", "--isolation", "chroot", "--platform", "wasi/wasm"];
    workshop.buildah(&[&build[..], &["--tag", "saved", "context"]].concat()).map(drop)
}

#[tokio::test]
async fn what_others_save_is_imported_and_runs() -> Result<()> {
    test::run(async |test| {
        let (node, workshop) = (Node::new(test)?, Workshop::new()?);
        build(&workshop)?;
        for (form, file) in FORMS {
            let name = format!("example.com/saved/{form}:1");
            workshop.buildah(&["push", "saved", &format!("{form}:{file}:{name}")])?;
            let taken = node.says(&["import", &workshop.path(file).to_string_lossy()])?;
            ensure!(taken.contains(&name), "{form}: {taken}");
            says(test, form, &name, &json!({ "imagePullPolicy": "Never" }), "hello").await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_nodule_pushes_others_read() -> Result<()> {
    test::run(async |test| {
        let (node, workshop) = (Node::new(test)?, Workshop::new()?);
        let program = guest("probe.p2.wasm")?;
        workshop.write("pushed/probe.wasm", &program)?;
        let image = test.image("tests/by-nodule:1");
        node.says(&["push", &workshop.path("pushed/probe.wasm").to_string_lossy(), &image])?;

        workshop.run("oras", &["pull", "--plain-http", "--output", "oras", &image])?;
        let host = &test.cluster.registry().host;
        workshop
            .run("wkg", &["oci", "pull", "--insecure", host, "--output", "wkg.wasm", &image])?;
        let from = format!("docker://{image}");
        workshop.run("skopeo", &["copy", "--src-tls-verify=false", &from, "dir:skopeo"])?;

        let manifest: Value =
            serde_json::from_slice(&fs::read(workshop.path("skopeo/manifest.json"))?)?;
        let layer = manifest["layers"][0]["digest"].as_str().unwrap_or_default();
        let by_skopeo = format!("skopeo/{}", layer.trim_start_matches("sha256:"));
        for file in ["oras/probe.wasm", "wkg.wasm", &by_skopeo] {
            ensure!(fs::read(workshop.path(file))? == program, "{file} is not what was pushed");
        }
        Ok(())
    })
    .await
}
