//! `nodule image` on a node: what an operator sees of its images and does to them, with its agent and without.

use std::fs;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nodule_e2e::cluster::Cluster;
use nodule_e2e::layout::PRIVATE_REGISTRY;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{paths, status, wait};
use serde_json::{Value, json};

/// The images of a test's node, for a user of its own.
pub(crate) struct Node<'t> {
    test: &'t Test<'t>,
    /// The user's home.
    home: tempfile::TempDir,
}

impl<'t> Node<'t> {
    pub(crate) fn new(test: &'t Test<'t>) -> Result<Self> {
        Ok(Self { test, home: tempfile::tempdir()? })
    }

    fn log_in(&self, registry: &str) -> Result<()> {
        fs::create_dir_all(self.home.path().join(".docker"))?;
        Ok(fs::write(self.home.path().join(".docker/config.json"), login(registry))?)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(paths::program("nodule")?);
        command.args(["image", "--node"]).args(arguments);
        for (flag, file) in [("root-dir", "root"), ("run-dir", "run"), ("config", "config.yaml")] {
            command.arg(format!("--{flag}={}", self.test.agent.file(file).display()));
        }
        command.env("HOME", self.home.path()).env_remove("DOCKER_CONFIG").stdin(Stdio::null());
        command.output().context("run nodule image")
    }

    /// What a command that ends well prints.
    pub(crate) fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Why a command fails.
    fn refusal(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(!output.status.success(), "{arguments:?} is done");
        Ok(String::from_utf8(output.stderr)?)
    }

    fn inspect(&self, image: &str) -> Result<Value> {
        let all: Value = serde_json::from_str(&self.says(&["inspect", "-o", "json", image])?)?;
        Ok(all[0].clone())
    }

    /// The tags of all images.
    fn tags(&self) -> Result<Vec<String>> {
        let text = self.says(&["ls", "-o", "json"])?;
        let all: Vec<Value> = serde_json::from_str(&text)?;
        let tags = all.iter().filter_map(|image| image["tags"].as_array()).flatten();
        Ok(tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect())
    }
}

/// What `docker login` writes.
fn login(registry: &str) -> String {
    let (user, password) = PRIVATE_REGISTRY;
    let auth = STANDARD.encode(format!("{user}:{password}"));
    json!({ "auths": { registry: { "auth": auth } } }).to_string()
}

fn guest(name: &str) -> Result<String> {
    Ok(paths::guest(name)?.display().to_string())
}

/// Makes a pod that runs an image which nobody pulls.
async fn pod(test: &Test<'_>, name: &str, image: &str) -> Result<()> {
    let mut spec = test.spec(&["lines", "0", "1000"]);
    spec["containers"][0]["image"] = json!(image);
    spec["containers"][0]["imagePullPolicy"] = json!("Never");
    test.pod(name, spec).await.map(drop)
}

#[tokio::test]
async fn an_image_is_brought_to_a_node_by_hand_and_cannot_be_taken_from_its_pod() -> Result<()> {
    test::run(async |test| {
        let (node, name) = (Node::new(test)?, "example.com/team/probe:1");
        let taken = node.says(&["import", "--name", name, &guest("probe.p1.wasm")?])?;
        assert!(taken.starts_with(&format!("{name} sha256:")), "{taken}");
        pod(test, "runs", name).await?;
        test.pod_until("runs", "to run", |pod| status::running(pod).is_some()).await?;

        let inspected = node.inspect(name)?;
        assert_eq!(
            (&inspected["program"]["kind"], &inspected["runs"]["here"]),
            (&json!("module"), &json!(true))
        );
        let imports = inspected["program"]["imports"].to_string();
        assert!(imports.contains("wasi_snapshot_preview1"), "{imports}");
        let why = node.refusal(&["rm", name])?;
        assert!(why.contains(name) && why.contains("used by a pod"), "{why}");
        assert!(!node.says(&["prune", "--all"])?.contains(name));
        assert_eq!(node.tags()?, [name]);

        test.kubectl(&["delete", "pod", "runs", "--now"])?;
        // What the pod had on the node goes after it is gone from the cluster.
        let removed = wait::found("its image to be free", || node.says(&["rm", name]).ok()).await?;
        assert!(removed.starts_with(&format!("removed {name} (sha256:")), "{removed}");
        assert_eq!(node.tags()?, Vec::<String>::new());
        let why = node.refusal(&["inspect", name])?;
        assert!(why.contains("there is no image") && why.contains("nodule image ls"), "{why}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_program_is_pushed_with_nothing_else_and_pulled_by_those_who_may() -> Result<()> {
    test::run(async |test| {
        let (node, registry) = (Node::new(test)?, test.cluster.private_registry());
        let image = format!("{}/tests/pushed:1", registry.host);
        let file = guest("probe.p2.wasm")?;
        let why = node.refusal(&["push", &file, &image])?;
        assert!(why.contains(&image) && why.contains("access denied"), "{why}");
        node.log_in(&registry.host)?;
        let pushed = node.says(&["push", &file, &image])?;
        let digest = pushed.trim().rsplit(' ').next().context("a digest")?.to_owned();

        let pulled = node.says(&["pull", &image])?;
        assert!(pulled.contains(&digest), "{pulled} is not {digest}");
        let inspected = node.inspect(&image)?;
        assert_eq!(inspected["program"]["kind"], "component");
        assert_eq!(inspected["digest"], json!(digest));
        assert_eq!(inspected["title"], "probe.p2.wasm");
        // Of this name the node's configuration does not say that it speaks no TLS.
        let here = registry.host.replace("127.0.0.1", "localhost");
        node.log_in(&here)?;
        let again = format!("{here}/tests/pushed:2");
        assert!(node.says(&["push", &file, &again])?.contains(&digest));
        assert!(node.says(&["pull", &again])?.contains(&digest));
        // It was pulled with a password: a pod has to have it, too.
        pod(test, "may-not", &image).await?;
        test.pod_until("may-not", "to be refused", |pod| {
            status::waiting(pod)
                .is_some_and(|why| why.reason.as_deref() == Some("ErrImageNeverPull"))
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn images_are_looked_after_without_an_agent() -> Result<()> {
    test::run(async |test| {
        let image = test.image("examples/probe:p1");
        pod(test, "waits", &image).await?;
        test.agent.stop()?;
        {
            let node = Node::new(test)?;
            node.says(&["pull", &image, &test.image("examples/probe:p2")])?;
            assert_eq!(node.tags()?, [image.clone(), test.image("examples/probe:p2")]);
            assert!(node.says(&["prune", "--all"])?.contains("2 images"));
            node.says(&["pull", &image])?;
        }
        test.agent.start_again()?;
        test.pod_until("waits", "to run", |pod| status::running(pod).is_some()).await?;
        test.agent.kill()?;
        let node = Node::new(test)?;
        let why = node.refusal(&["rm", &image])?;
        assert!(why.contains("used by a pod"), "a pod outlives its agent: {why}");
        Ok(())
    })
    .await
}

/// A pod that runs an image of the private registry without a cluster, and with it what opens that.
fn manifest(image: &str, secret: &str) -> String {
    let (user, password) = PRIVATE_REGISTRY;
    let registry = image.split('/').next().unwrap_or_default();
    let auths = json!({ "auths": { registry: { "username": user, "password": password } } });
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: login}}\ntype: kubernetes.io/dockerconfigjson\n\
         stringData: {{.dockerconfigjson: '{auths}'}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: job}}\n\
         spec:\n  restartPolicy: Never\n  imagePullSecrets: [{secret}]\n\
         \x20 containers: [{{name: main, image: '{image}', args: [lines, '2', '0']}}]\n"
    )
}

#[tokio::test]
async fn a_secret_or_a_login_opens_an_image_without_a_cluster() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let registry = &cluster.private_registry().host;
    let image = format!("{registry}/examples/probe:p1");
    for (number, secret, has_login) in [(1, "{name: login}", false), (2, "", true)] {
        let place = cluster.folder().join(format!("alone-{number}"));
        fs::create_dir_all(place.join("home/.docker"))?;
        let config = "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\n";
        fs::write(
            place.join("config.yaml"),
            format!("{config}plainHTTPRegistries: ['{registry}']\n"),
        )?;
        fs::write(place.join("pod.yaml"), manifest(&image, secret))?;
        if has_login {
            fs::write(place.join("home/.docker/config.json"), login(registry))?;
        }
        let mut command = Command::new(paths::program("nodule")?);
        command.arg("run").arg(place.join("pod.yaml")).arg("--root-dir").arg(place.join("root"));
        command.arg("--config").arg(place.join("config.yaml"));
        command.env("HOME", place.join("home")).env_remove("DOCKER_CONFIG").stdin(Stdio::null());
        let output = command.output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{secret}: {errors}");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        let kept = Command::new("grep")
            .args(["-rlF", PRIVATE_REGISTRY.1])
            .arg(place.join("root"))
            .output()?;
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "a password was kept");
    }
    Ok(())
}
