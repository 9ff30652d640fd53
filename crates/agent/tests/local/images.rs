//! `nodule image` without a registry and without a cluster.

use std::ffi::OsStr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::machine::{Machine, PATIENCE, end};
use crate::path;

/// The tags of all images.
async fn tags(machine: &Machine) -> Vec<String> {
    let all: Vec<Value> =
        serde_json::from_str(&machine.says(&["image", "ls", "-o", "json"]).await).unwrap();
    let tags = all.iter().filter_map(|image| image["tags"].as_array()).flatten();
    tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// Why a command fails.
async fn refusal(machine: &Machine, arguments: &[&str]) -> String {
    let output = machine.run(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_file_becomes_an_image_that_pods_run_by_its_name() {
    let machine = Machine::new();
    let file = machine.file("fails.wasm");
    let taken = machine.says(&["image", "import", path(&file), "-n", "example.com/a:1"]).await;
    assert!(taken.starts_with("example.com/a:1 sha256:"), "{taken}");
    let pod = machine.pod("job", "image: 'example.com/a:1', imagePullPolicy: Never, args: [hi]");
    let output = machine.run(&["run", path(&pod)]).await;
    assert_eq!(output.status.code(), Some(3), "{}", machine.log());

    machine.says(&["image", "import", path(&file), path(&machine.file("says.wasm"))]).await;
    let both = ["example.com/a:1", "localhost/fails:latest", "localhost/says:latest"];
    assert_eq!(tags(&machine).await, both);
    let gone = machine.says(&["image", "rm", "localhost/fails:latest"]).await;
    assert!(gone.contains("has others"), "{gone}");
    let shown = machine.says(&["image", "inspect", "localhost/says"]).await;
    for line in ["Kind:           module: a command", "Runs here:      yes"] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    assert!(shown.contains("wasi_snapshot_preview1"), "{shown}");
    assert!(machine.says(&["image", "prune", "--all"]).await.contains("2 images"));
    assert_eq!(machine.says(&["image", "ls", "-o", "name"]).await, "");
}

#[tokio::test]
async fn an_image_of_a_pod_stays_whoever_has_the_store() {
    let machine = Machine::new();
    let pod = machine.pod("waits", "image: ./waits.wasm, stdin: true");
    let run = machine.begin(&["run", path(&pod)], "shown");
    machine.until("it runs", async || machine.text("shown").contains("waiting")).await;
    let name = machine.says(&["image", "ls", "-o", "name"]).await;
    let why = refusal(&machine, &["image", "rm", name.trim()]).await;
    assert!(why.contains("used by a pod"), "{why}");
    assert!(machine.says(&["image", "prune", "-a"]).await.contains("0 images"));
    machine.says(&["stop", "waits"]).await;
    assert_eq!(end(run, None).await, Some(0));
}

#[tokio::test]
async fn what_cannot_be_done_is_told_and_nothing_is_lost() {
    let machine = Machine::new();
    let file = machine.file("says.wasm");
    machine.says(&["image", "import", path(&file)]).await;
    let text = machine.write("text.wasm", "no program");
    let both = [path(&file), path(&text)];
    for (arguments, part) in [
        (&["import", path(&text)][..], "text.wasm: it is no Wasm binary"),
        (&["import", "/no/such/file"], "/no/such/file: read it: No such file"),
        (&["import", "-n", "a/b:1", both[0], both[1]], "import the files one by one"),
        (&["rm", "localhost/nothing"], "there is no image localhost/nothing"),
        (&["rm", "localhost/nothing", "localhost/none"], "2 of 2 images are still there"),
        (&["rm", "sha256:"], "there is no image"),
        (&["inspect", "a/B"], "invalid image name \"a/B\""),
        (&["push", path(&text), "127.0.0.1:1/a:1"], "text.wasm is no Wasm binary"),
        (&["pull", "127.0.0.1:1/a:1"], "pull 127.0.0.1:1/a:1"),
    ] {
        let arguments: Vec<&str> = ["image"].iter().chain(arguments).copied().collect();
        let why = refusal(&machine, &arguments).await;
        assert!(why.contains(part), "{arguments:?}: {why}");
    }
    assert_eq!(tags(&machine).await, ["localhost/says:latest"]);
}

#[tokio::test]
async fn registries_are_reached_by_the_proxies_of_the_environment() {
    let (proxy, registry) = (listener().await, listener().await);
    let by = format!("http://{}", proxy.local_addr().unwrap());
    let direct = registry.local_addr().unwrap();
    let machine = Machine::new();
    let config = machine.write(
        "config.yaml",
        &format!(
            "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\n\
             plainHTTPRegistries: [plain.example.com, '{direct}']\n"
        ),
    );
    let asks = async |peer: &TcpListener, image: &str, no: &str| {
        let words = ["image", "pull", "--config", path(&config), image].map(OsStr::new);
        let mut pull = machine.command(&words);
        pull.env("HTTP_PROXY", &by).env("HTTPS_PROXY", &by).env("NO_PROXY", no);
        let _pull = pull.spawn().unwrap();
        let (asked, _) = timeout(PATIENCE, peer.accept()).await.expect("it is asked").unwrap();
        BufReader::new(asked).lines().next_line().await.unwrap().unwrap()
    };

    let line = asks(&proxy, "plain.example.com/a:1", "10.0.0.0/8").await;
    assert_eq!(line, "GET http://plain.example.com/v2/a/manifests/1 HTTP/1.1");
    let line = asks(&proxy, "tls.example.com/a:1", "plain.example.com").await;
    assert_eq!(line, "CONNECT tls.example.com:443 HTTP/1.1");
    let line = asks(&registry, &format!("{direct}/a:1"), "127.0.0.0/8").await;
    assert_eq!(line, "GET /v2/a/manifests/1 HTTP/1.1");
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}
