//! Pods that answer HTTP requests.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::push::{Image, Packaging};
use nodule_e2e::{paths, ports, status, test};
use serde_json::json;

#[tokio::test]
async fn a_component_is_served_on_its_port_and_stops_in_order() -> Result<()> {
    test::run(async |test| {
        let program = std::fs::read(paths::guest("web.p2.wasm")?)?;
        let image = Image::of_program(Packaging::Cncf, program);
        let image = test.cluster.registry().push("tests/web:1", &image).await?;
        let port = ports::free()?;
        let mut spec = test.spec(&[]);
        spec["restartPolicy"] = json!("Never");
        spec["containers"][0]["image"] = json!(image);
        spec["containers"][0]["ports"] =
            json!([{ "name": "http", "containerPort": port, "hostIP": "127.0.0.1" }]);
        // Held by a finalizer, the object is there when its pod has ended.
        let held = json!({ "name": "web", "finalizers": ["nodule.dev/test"] });
        test.create::<Pod>(json!({ "metadata": held, "spec": spec })).await?;
        test.pod_until("web", "to be ready", status::is_ready).await?;
        let answer = get(port, "/hello")?;
        ensure!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nhello\r\n"),
            "{answer}"
        );
        test.kubectl(&["delete", "pod", "web", "--wait=false"])?;
        let ended =
            test.pod_until("web", "to have ended", |pod| status::terminated(pod).is_some()).await?;
        let end = status::terminated(&ended).context("an end")?;
        assert_eq!((end.exit_code, end.reason.as_deref()), (0, Some("Completed")));
        test.kubectl(&["patch", "pod", "web", "-p", r#"{"metadata":{"finalizers":null}}"#])?;
        Ok(())
    })
    .await
}

/// An answer, whole.
fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
