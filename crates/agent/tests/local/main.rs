//! `nodule run` and what goes with it: the built program, its agent in the background, and real guests.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail as a test does")]

mod guests;
mod images;
mod machine;

use std::os::unix::fs::PermissionsExt;

use machine::{Machine, end};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

fn path(file: &std::path::Path) -> &str {
    file.to_str().unwrap()
}

#[tokio::test]
async fn a_pod_runs_to_its_end_and_its_exit_code_is_the_commands() {
    let machine = Machine::new();
    let file = machine.pod("job", "image: ./fails.wasm, args: [hello]");
    for _ in 0..2 {
        let output = machine.run(&["run", path(&file)]).await;
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            (output.status.code(), shown.as_str()),
            (Some(3), "job/main | hello\n"),
            "{}",
            machine.log()
        );
    }
    assert_eq!(machine.says(&["ps", "-o", "name"]).await, "", "nothing is left");
    let socket = std::fs::metadata(machine.file("root/run/agent.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_manifests_own_objects_are_given_to_its_pods() {
    let machine = Machine::new();
    let file = machine.write(
        "all.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\ndata: {GREETING: good day}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {name: names}\nstringData: {who: $(GREETING)}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: greets}\nspec:\n  restartPolicy: Never\n  containers:\n\
         \x20 - name: main\n    image: ./says.wasm\n    args: ['$(GREETING), $(WHO)']\n\
         \x20   envFrom: [{configMapRef: {name: words}}]\n\
         \x20   env: [{name: WHO, valueFrom: {secretKeyRef: {name: names, key: who}}}]\n",
    );
    assert_eq!(machine.says(&["run", path(&file)]).await, "greets/main | good day, $(GREETING)\n");
}

#[tokio::test]
async fn pods_in_the_background_are_listed_read_stopped_and_removed() {
    let machine = Machine::new();
    let file = machine.write(
        "web.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {}\n\
         \x20 template:\n    spec:\n      containers:\n      - {name: main, image: ./waits.wasm, stdin: true}\n",
    );
    let begun = machine.says(&["run", "--detach", path(&file)]).await;
    assert_eq!(begun, "web-pod-0\nweb-pod-1\n");
    let again = machine.run(&["run", "-d", path(&file)]).await;
    let refused = String::from_utf8(again.stderr).unwrap();
    assert!(
        refused.contains("\"web-pod-0\" already") && refused.contains("--replace"),
        "{refused}"
    );
    let agent = machine.agent();
    machine
        .until("both run", async || {
            machine.says(&["ps"]).await.matches("1/1     Running").count() == 2
        })
        .await;
    assert_eq!(machine.agent(), agent, "one agent serves all commands");
    machine
        .until("a log", async || machine.says(&["logs", "web-pod-0"]).await == "waiting\n")
        .await;
    let follows = machine.begin(&["logs", "-f", "web-pod-1"], "followed");
    let refused = machine.run(&["rm", "web-pod-1"]).await;
    assert_eq!(refused.status.code(), Some(1));
    machine.says(&["stop", "web-pod-1"]).await;
    assert_eq!(end(follows, None).await, Some(0));
    assert_eq!(machine.text("followed"), "waiting\n");
    let list: Value = serde_json::from_str(&machine.says(&["ps", "-o", "json"]).await).unwrap();
    let phases: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["Running", "Succeeded"]);
    assert_eq!(machine.says(&["logs", "web-pod-1"]).await, "waiting\n", "its log stays");
    machine.says(&["rm", "web-pod-1"]).await;
    machine.says(&["run", "--detach", "--replace", path(&file)]).await;
    machine.says(&["rm", "--all", "--force"]).await;
    assert_eq!(machine.says(&["ps", "-o", "name"]).await, "");
}

#[tokio::test]
async fn ctrl_c_stops_the_pods_within_their_grace() {
    let machine = Machine::new();
    let file = machine.pod("waits", "image: ./waits.wasm, stdin: true");
    let run = machine.begin(&["run", path(&file)], "shown");
    machine.until("it runs", async || machine.text("shown").contains("waits/main | waiting")).await;
    assert_eq!(end(run, Some(Signal::INT)).await, Some(130));
    assert!(machine.log().contains("code=0"), "it was told, and not killed: {}", machine.log());
    assert_eq!(machine.says(&["ps", "-o", "name"]).await, "");
}

#[tokio::test]
async fn a_run_outlives_its_agent() {
    let machine = Machine::new();
    let file = machine.pod("waits", "image: ./waits.wasm, stdin: true");
    let run = machine.begin(&["run", path(&file)], "shown");
    machine.until("it runs", async || machine.text("shown").contains("waiting")).await;
    let first = machine.agent().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    machine.until("the next agent", async || machine.agent() != Some(first)).await;
    machine.until("adopted", async || machine.log().contains("container adopted")).await;
    let list: Value = serde_json::from_str(&machine.says(&["ps", "-o", "json"]).await).unwrap();
    let status = &list["items"][0]["status"]["containerStatuses"][0];
    assert!(status["state"]["running"].is_object() && status["restartCount"] == 0, "{status}");
    machine.says(&["stop", "waits"]).await;
    assert_eq!(end(run, None).await, Some(0));
    assert_eq!(machine.text("shown"), "waits/main | waiting\n", "shown once");
}

#[tokio::test]
async fn a_wrong_manifest_is_refused_with_file_document_and_field() {
    let machine = Machine::new();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: c, image: ./says.wasm}\n";
    for (text, part) in [
        (String::new(), "m.yaml: there is no object"),
        ("a: [".to_owned(), "m.yaml: "),
        (
            format!("{pod}---\nkind: Service\napiVersion: v1\n"),
            "m.yaml, document 2: kind \"Service\"",
        ),
        (pod.replace("image:", "imgae:"), "m.yaml, document 1, field \"spec.containers[0].imgae\""),
        (pod.replace("name: a", "name: a_b"), "m.yaml, document 1, field \"metadata.name\""),
        (pod.replace("./says", "./none"), "m.yaml, document 1: image ./none.wasm"),
        (pod.replace("./says.wasm", "./m.yaml"), "it is no Wasm binary"),
        (
            format!("{pod}  volumes: [{{name: v, configMap: {{name: x}}}}]\n"),
            "m.yaml, document 1: there is no ConfigMap \"x\"",
        ),
    ] {
        let file = machine.write("m.yaml", &text);
        let output = machine.run(&["run", path(&file)]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{text}\n{error}");
    }
    assert_eq!(machine.says(&["ps", "-o", "name"]).await, "");
    let output = machine.run(&["run", path(&machine.file("none.yaml"))]).await;
    assert!(String::from_utf8(output.stderr).unwrap().contains("none.yaml"));
}

#[tokio::test]
async fn an_agent_that_cannot_start_says_why() {
    let machine = Machine::new();
    let config = machine.write(
        "config.yaml",
        "apiVersion: nodule.dev/v1alpha1\nkind: NoduleConfiguration\nsandboxpath: x\n",
    );
    let output = machine.run(&["ps", "--config", path(&config)]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("does not start") && error.contains("sandboxPath"), "{error}");
}
