//! Images that other people's programs made, pulled from the registry and run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use nodule_e2e::test::{self, Test};
use nodule_e2e::tools::Workshop;
use nodule_e2e::{status, wait};
use serde_json::json;

use crate::packagings::{ended, guest, says};

/// How long a language's whole interpreter may be compiled, by a compiler that is built without optimisation.
const COMPILE: Duration = Duration::from_secs(600);

/// What all of these images are made of: the program, a text, and how to put them together.
fn workshop() -> Result<Workshop> {
    let workshop = Workshop::new()?;
    workshop.write("context/probe.wasm", guest("probe.p1.wasm")?)?;
    workshop.write("context/motd", "hello")?;
    workshop.write(
        "context/Containerfile",
        "FROM scratch\nCOPY probe.wasm /bin/probe.wasm\nCOPY motd /etc/motd\nENTRYPOINT [\"/bin/probe.wasm\"]\n",
    )?;
    Ok(workshop)
}

/// Builds with buildah what is called this from then on.
fn build(workshop: &Workshop, name: &str, options: &[&str]) -> Result<()> {
    let build: &[&str] = &["build", "--isolation", "chroot"];
    workshop.buildah(&[build, options, &["--tag", name, "context"]].concat()).map(drop)
}

/// Pushes what buildah built as `tools/NAME:1`, and gives back the reference. The last argument is what buildah calls it.
fn push(test: &Test<'_>, workshop: &Workshop, name: &str, push: &[&str]) -> Result<String> {
    let reference = test.image(&format!("tools/{name}:1"));
    let (local, push) = push.split_last().context("what is pushed")?;
    let target = format!("docker://{reference}");
    workshop.buildah(&[push, &["--tls-verify=false", local, &target]].concat())?;
    Ok(reference)
}

/// Copies with skopeo from a folder of OCI images to `tools/NAME:1`, and gives back the reference.
fn upload(test: &Test<'_>, workshop: &Workshop, from: &str, name: &str) -> Result<String> {
    let reference = test.image(&format!("tools/{name}:1"));
    copy(workshop, &[from, &format!("docker://{reference}")])?;
    Ok(reference)
}

/// Copies with skopeo, which is to speak plain HTTP to the registry.
fn copy(workshop: &Workshop, arguments: &[&str]) -> Result<()> {
    let copy = ["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"];
    workshop.run("skopeo", &[&copy, arguments].concat()).map(drop)
}

#[tokio::test]
async fn what_buildah_builds_runs() -> Result<()> {
    test::run(async |test| {
        let workshop = workshop()?;
        build(&workshop, "wasi", &["--platform", "wasi/wasm"])?;
        build(&workshop, "linux", &["--annotation", "module.wasm.image/variant=compat"])?;
        let both = ["build", "--isolation", "chroot", "--platform", "linux/amd64,wasi/wasm"];
        workshop.buildah(&[&both[..], &["--manifest", "both", "context"]].concat())?;
        let push = |name, arguments: &[&str]| push(test, &workshop, name, arguments);
        for (name, reference) in [
            ("wasi", push("wasi", &["push", "wasi"])?),
            ("compat", push("compat", &["push", "linux"])?),
            ("docker", push("docker", &["push", "--format", "v2s2", "wasi"])?),
            ("both", push("both", &["manifest", "push", "--all", "both"])?),
        ] {
            let reads = json!({ "args": ["read", "/etc/motd"] });
            says(test, name, &reference, &reads, "hello").await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_skopeo_carries_from_format_to_format_runs() -> Result<()> {
    test::run(async |test| {
        let workshop = workshop()?;
        build(&workshop, "wasi", &["--platform", "wasi/wasm"])?;
        // Layers are compressed anew on the way into a folder, and stay as they are on the way out.
        workshop.buildah(&["push", "--compression-format", "zstd", "wasi", "oci:folder:zstd"])?;
        workshop.buildah(&["push", "wasi", "oci:folder:gzip"])?;
        copy(&workshop, &["--format", "v2s2", "oci:folder:gzip", "dir:docker"])?;
        copy(&workshop, &["--format", "oci", "dir:docker", "oci:folder:again"])?;
        let artifact = format!("docker://{}", test.image("examples/probe:p2"));
        copy(&workshop, &[&artifact, "oci:folder:artifact"])?;
        let reads = json!({ "args": ["read", "/etc/motd"] });
        for (name, from) in
            [("zstd", "oci:folder:zstd"), ("docker", "dir:docker"), ("again", "oci:folder:again")]
        {
            let reference = upload(test, &workshop, from, &format!("skopeo-{name}"))?;
            says(test, name, &reference, &reads, "hello").await?;
        }
        let artifact = upload(test, &workshop, "oci:folder:artifact", "skopeo-artifact")?;
        says(test, "artifact", &artifact, &json!({ "args": ["show"] }), "").await
    })
    .await
}

/// Of three layers: the program; a folder; and what was changed and removed in that.
fn umoci(workshop: &Workshop) -> Result<()> {
    let umoci = |arguments: &[&str]| workshop.run("umoci", arguments).map(drop);
    umoci(&["init", "--layout", "folder"])?;
    umoci(&["new", "--image", "folder:1"])?;
    umoci(&["insert", "--image", "folder:1", "context/probe.wasm", "/bin/probe.wasm"])?;
    umoci(&["insert", "--image", "folder:1", "context", "/data"])?;
    umoci(&["unpack", "--rootless", "--image", "folder:1", "bundle"])?;
    workshop.write("bundle/rootfs/data/motd", "changed")?;
    std::fs::remove_file(workshop.path("bundle/rootfs/data/Containerfile"))?;
    umoci(&["repack", "--image", "folder:2", "bundle"])?;
    let platform = ["--os", "wasi", "--architecture", "wasm"];
    let command = ["--config.entrypoint", "/bin/probe.wasm"];
    umoci(&[&["config", "--image", "folder:2"], &platform[..], &command].concat())
}

#[tokio::test]
async fn what_umoci_puts_together_runs() -> Result<()> {
    test::run(async |test| {
        let workshop = workshop()?;
        umoci(&workshop)?;
        let image = upload(test, &workshop, "oci:folder:2", "umoci")?;
        let reads = json!({ "args": ["read", "/data/motd"] });
        says(test, "changed", &image, &reads, "changed").await?;
        says(test, "all", &image, &json!({ "args": ["ls", "/data"] }), "motd\nprobe.wasm").await?;
        let log = test.kubectl(&["logs", "all"])?;
        ensure!(!log.contains("Containerfile"), "what a layer removes is away: {log}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_oras_pushes_runs() -> Result<()> {
    test::run(async |test| {
        let workshop = Workshop::new()?;
        workshop.write("probe.wasm", guest("probe.p2.wasm")?)?;
        for (name, more) in
            [("plain", &[][..]), ("typed", &["--artifact-type", "application/wasm"])]
        {
            let image = test.image(&format!("tools/oras-{name}:1"));
            let file = ["push", "--plain-http", &image, "probe.wasm:application/wasm"];
            workshop.run("oras", &[&file, more].concat())?;
            says(test, name, &image, &json!({ "args": ["show"] }), "").await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_wkg_pushes_runs_if_it_is_a_program() -> Result<()> {
    test::run(async |test| {
        let workshop = Workshop::new()?;
        workshop.write("module.wasm", guest("probe.p1.wasm")?)?;
        workshop.write("component.wasm", guest("probe.p2.wasm")?)?;
        let wit = "package example:greeter@1.0.0;\ninterface greet { greet: func() -> string; }\n";
        workshop.write("wit/greeter.wit", wit)?;
        workshop.run("wkg", &["build", "--wit-dir", "wit", "--output", "wit.wasm"])?;
        let push = |name: &str| {
            let image = test.image(&format!("tools/wkg-{name}:1"));
            let (host, file) = (&test.cluster.registry().host, format!("{name}.wasm"));
            workshop.run("wkg", &["oci", "push", "--insecure", host, &image, &file])?;
            anyhow::Ok(image)
        };
        for name in ["module", "component"] {
            says(test, name, &push(name)?, &json!({ "args": ["show"] }), "").await?;
        }
        let interfaces = ended(test, "wit", &push("wit")?, &json!({})).await?;
        let waiting = status::waiting(&interfaces).and_then(|waiting| waiting.message.clone());
        ensure!(waiting.as_ref().is_some_and(|why| why.contains("WIT package")), "{waiting:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_command_in_python_runs() -> Result<()> {
    test::run(async |test| {
        let workshop = Workshop::new()?;
        workshop.write("python.wasm", guest("python.p2.wasm")?)?;
        let image = test.image("tools/python:1");
        workshop.run("oras", &["push", "--plain-http", &image, "python.wasm:application/wasm"])?;
        test.create::<ConfigMap>(
            json!({ "metadata": { "name": "numbers" }, "data": { "all": "1 2 3" } }),
        )
        .await?;
        let mut spec = test.spec(&["/numbers/all"]);
        spec["restartPolicy"] = json!("Never");
        spec["volumes"] = json!([{ "name": "numbers", "configMap": { "name": "numbers" } }]);
        let main = &mut spec["containers"][0];
        main["image"] = json!(image);
        main["env"] = json!([{ "name": "GREETING", "value": "hello" }]);
        main["volumeMounts"] = json!([{ "name": "numbers", "mountPath": "/numbers" }]);
        test.pod("python", spec).await?;
        let is_over = |pod: &Pod| status::terminated(pod).is_some();
        wait::until_within(COMPILE, test.api(), wait::named("python"), "Python to end", |pods| {
            pods.iter().any(is_over)
        })
        .await?;
        let log = test.kubectl(&["logs", "python"])?;
        assert_eq!(log, "{\"greeting\": \"hello\", \"sum\": 6}\n");
        Ok(())
    })
    .await
}
