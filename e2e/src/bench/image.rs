//! What an image's way to a node costs, beside others' ways, in one run: `just bench image`.
//!
//! nodule's time is the one that the pod's `Pulled` Event tells; for others it is that of their command. Each image is new to
//! all of them, and in the page cache of the registry's machine. Only ratios mean something: the machine is whatever it is.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::watcher;
use serde_json::json;

use super::machine;
use super::payload::{artifact, image, size};
use super::peers::Peers;
use super::table::Table;
use super::ways::{megabytes, settle, table, told, ways};
use crate::agent::Options;
use crate::push::Image;
use crate::terminal::{answer, say};
use crate::test::{self, Test};
use crate::{status, wait};

/// How many images of each kind are pulled.
const ROUNDS: usize = 7;
/// What a program and what an image of files has, in bytes. The latter is about half of it in the registry.
const PROGRAM: usize = 30_000_000;
const FILES: (usize, usize) = (6, 10_000_000);
/// Many small files, as those of an interpreter's library.
const MANY: (usize, usize) = (4_000, 25_000);
/// What shows that memory does not grow with what is pulled.
const LARGE: usize = 256 << 20;
/// Pods of one new image.
const CROWD: usize = 50;

/// Measures and prints tables.
pub async fn run() -> Result<()> {
    let options = Options { alone: true, max_pods: 250, ..Options::default() };
    test::run_with(&options, async |test| {
        let bench = Bench { test, peers: Peers::start().await? };
        let machine = machine::describe(&[]);
        answer(format!("{machine}\n"));
        let mut tables = vec![bench.memory().await?, bench.artifacts().await?];
        for shape in [FILES, MANY] {
            tables.push(bench.images(shape).await?);
        }
        // Last: its pods stay.
        tables.push(bench.crowd().await?);
        tables.iter().for_each(|table| answer(table.text()));
        answer(format!("In Markdown:\n\n{machine}; afterwards {}\n", machine::load()));
        tables.iter().for_each(|table| answer(table.markdown()));
        Ok(())
    })
    .await
}

/// Who pulls.
struct Bench<'a, 'b> {
    test: &'a Test<'b>,
    peers: Peers,
}

impl Bench<'_, '_> {
    /// Programs as artifacts, which containerd does not unpack.
    async fn artifacts(&self) -> Result<Table> {
        let mut ways = ways(["nodule", "skopeo copy to a folder"]);
        for round in 0..ROUNDS {
            let name = format!("artifact-{round}");
            let reference = self.push(&name, &artifact(PROGRAM)?).await?;
            let [nodule, skopeo] = &mut ways;
            nodule.seconds.push(self.pull(&name, &reference).await?);
            skopeo.seconds.push(self.peers.skopeo(&reference)?);
        }
        let title = format!("A program of {} MB, {ROUNDS} times", megabytes(PROGRAM));
        Ok(table(&title, PROGRAM, &mut ways))
    }

    /// Images of so many files of this size.
    async fn images(&self, (files, each): (usize, usize)) -> Result<Table> {
        let mut ways =
            ways(["nodule", "ctr image pull", "skopeo copy to a folder, packed", "tar -xz, alone"]);
        let (mut packed, mut unpacked) = (0, 0);
        for round in 0..ROUNDS {
            let name = format!("image-{files}-{round}");
            let (image, archive) = image(files, each)?;
            (packed, unpacked) = (size(&image), archive);
            let reference = self.push(&name, &image).await?;
            let layer = &image.layers.first().context("a layer")?.content;
            let [nodule, containerd, skopeo, tar] = &mut ways;
            nodule.seconds.push(self.pull(&name, &reference).await?);
            containerd.seconds.push(self.peers.containerd(&reference)?);
            skopeo.seconds.push(self.peers.skopeo(&reference)?);
            tar.seconds.push(self.peers.tar(&name, layer)?);
        }
        let title = format!(
            "An image of {files} files, {} MB in the registry, {} MB unpacked, {ROUNDS} times",
            megabytes(packed),
            megabytes(unpacked)
        );
        Ok(table(&title, unpacked, &mut ways))
    }

    async fn push(&self, name: &str, image: &Image) -> Result<String> {
        say(format!("bench: {name}"));
        let pushed = self.test.cluster.registry().push(&format!("bench/{name}:1"), image).await?;
        settle();
        Ok(pushed)
    }

    /// The seconds that the agent took.
    async fn pull(&self, name: &str, image: &str) -> Result<f64> {
        self.pod(name, image, &["show"]).await?;
        let over = |pod: &Pod| status::terminated(pod).is_some();
        let pod = self.test.pod_until(name, "to end", over).await?;
        let code = status::terminated(&pod).map(|end| end.exit_code);
        ensure!(code == Some(0), "{name}: {:?}", pod.status);
        let which = format!("reason=Pulled,involvedObject.name={name}");
        let which = watcher::Config::default().fields(&which);
        let events =
            wait::until(self.test.api::<Event>(), which, "its Event", |all| !all.is_empty());
        let message = events.await?.into_iter().next().and_then(|event| event.message);
        told(&message.context("the Event's message")?)
    }

    async fn pod(&self, name: &str, image: &str, arguments: &[&str]) -> Result<Pod> {
        let mut spec = self.test.spec(arguments);
        let all = spec.as_object_mut().context("a spec")?;
        all.insert("restartPolicy".to_owned(), json!("Never"));
        let main = spec.pointer_mut("/containers/0/image").context("a container")?;
        *main = json!(image);
        self.test.pod(name, spec).await
    }

    /// What the agent holds more than before while it pulls.
    async fn memory(&self) -> Result<Table> {
        let head = ["", "before, MB", "at most more, MB"];
        let mut table =
            Table::new("The agent's memory (target: at most 32 MiB more than idle)", &head);
        self.pull("first", &self.push("first", &image(1, 1000)?.0).await?).await?;
        let (program, files) = (artifact(LARGE)?, image(MANY.0, MANY.1)?.0);
        for (name, image) in [("large-program", program), ("many-files", files)] {
            let title = format!("{}, {} MB", name.replace('-', " "), megabytes(size(&image)));
            let reference = self.push(name, &image).await?;
            drop(image);
            let before = self.test.agent.resident()?;
            self.test.agent.forget_peak()?;
            self.pull(name, &reference).await?;
            let more = self.test.agent.peak()?.saturating_sub(before);
            table.row(
                [title, megabytes(usize::try_from(before)?), megabytes(usize::try_from(more)?)]
                    .into(),
            );
        }
        Ok(table)
    }

    /// Many pods at once want an image that is not here.
    async fn crowd(&self) -> Result<Table> {
        let (image, _) = image(FILES.0, FILES.1)?;
        let reference = self.push("crowd", &image).await?;
        let begin = Timestamp::now();
        for number in 0..CROWD {
            self.pod(&format!("crowd-{number}"), &reference, &["lines", "0", "600000"]).await?;
        }
        let run = |pods: &[Pod]| {
            pods.iter().filter(|pod| status::running(pod).is_some()).count() == CROWD
        };
        self.test.pods_until("", &format!("{CROWD} to run"), run).await?;
        let took = Timestamp::now().duration_since(begin).as_secs_f64();
        let log = self.test.cluster.log("registry")?;
        let asked = |what: &str| log.matches(&format!("\"GET /v2/bench/crowd/{what}/")).count();
        let head = [
            "",
            "s until all run",
            "downloads of the layer and the configuration",
            "looks at the manifest",
        ];
        let mut table =
            Table::new(&format!("{CROWD} pods of one new image (target: one download)"), &head);
        let counts = [asked("blobs"), asked("manifests")].map(|count| count.to_string());
        table.row(["nodule".to_owned(), format!("{took:.1}")].into_iter().chain(counts).collect());
        ensure!(asked("blobs") == 2, "{} blobs were downloaded, not 2", asked("blobs"));
        Ok(table)
    }
}
