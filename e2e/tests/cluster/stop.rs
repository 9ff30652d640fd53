//! How pods stop, whatever their guests are at.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

/// The table of docs/stopping.md.
#[tokio::test]
async fn a_guest_that_does_not_come_back_is_killed_after_its_grace() -> Result<()> {
    test::run(async |test| {
        let names = ["loops", "sleeps", "accepts", "reads", "asks"];
        let (server, mute) = mute_server()?;
        test.pod("loops", never(test, "p1", &["spin"])).await?;
        test.pod("sleeps", never(test, "p2", &["sleep", "1000000"])).await?;
        test.pod("accepts", never(test, "p2", &["listen", "0"])).await?;
        test.pod("reads", reads_a_pipe(test)?).await?;
        test.pod("asks", asks(test, server)).await?;
        for name in names {
            test.pod_until(name, "to run", |pod| status::running(pod).is_some()).await?;
        }
        wait::found("the guest that accepts", || {
            let log = test.kubectl(&["logs", "accepts"]).unwrap_or_default();
            log.starts_with("listening").then_some(())
        })
        .await?;
        // The port stays open, so that nobody says that there is no server.
        let _mute = asked(mute).await?;
        let processes = test.agent.sandboxes();
        assert_eq!(processes.len(), names.len());
        let ended = names.map(|name| {
            test.pod_until(name, "to have been killed", |pod| status::terminated(pod).is_some())
        });
        test.kubectl(&["delete", "pods", "--all", "--wait=false"])?;
        for pod in try_join_all(ended).await? {
            killed_once(test, &pod).await?;
        }
        let gone = |pods: &[Pod]| pods.is_empty();
        wait::until(test.api::<Pod>(), wait::all(), "the pods to go", gone).await?;
        ensure!(processes.iter().all(|process| !process.runs()), "a process is left");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_whose_grace_runs_out_while_no_agent_is_there_is_killed_by_the_next() -> Result<()> {
    test::run(async |test| {
        test.pod("loops", never(test, "p1", &["spin"])).await?;
        test.pod_until("loops", "to run", |pod| status::running(pod).is_some()).await?;
        test.kubectl(&["delete", "pod", "loops", "--wait=false", "--grace-period=30"])?;
        wait::found("the stop notice", || {
            test.agent.log().contains("phase=Terminating").then_some(())
        })
        .await?;
        test.agent.kill()?;
        test.kubectl(&["delete", "pod", "loops", "--wait=false", "--grace-period=1"])?;
        test.agent.start_again()?;
        let pod = test
            .pod_until("loops", "to have been killed", |pod| status::terminated(pod).is_some())
            .await?;
        assert_eq!(status::terminated(&pod).map(|end| end.exit_code), Some(137));
        wait::until(test.api::<Pod>(), wait::all(), "the pod to go", <[_]>::is_empty).await?;
        Ok(())
    })
    .await
}

fn never(test: &Test<'_>, tag: &str, arguments: &[&str]) -> Value {
    let mut spec = test.spec(arguments);
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["image"] = json!(test.image(&format!("examples/probe:{tag}")));
    spec
}

/// Opens a pipe that nobody writes to.
fn reads_a_pipe(test: &Test<'_>) -> Result<Value> {
    let folder = test.agent.file("pipes");
    fs::create_dir_all(&folder)?;
    mknodat(CWD, folder.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o644), 0)?;
    let mut spec = never(test, "p1", &["read", "/pipes/pipe"]);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "pipes", "mountPath": "/pipes" }]);
    spec["volumes"] =
        json!([{ "name": "pipes", "hostPath": { "path": folder, "type": "Directory" } }]);
    Ok(spec)
}

/// A name server that says nothing, and hears nobody but its pod: resolv.conf(5) knows no port but 53, so that the address is
/// one of its own.
fn mute_server() -> Result<(Ipv4Addr, UdpSocket)> {
    let [one, two] = rand::random::<[u8; 2]>();
    let address = Ipv4Addr::new(127, 53, one, two.max(1));
    let socket = UdpSocket::bind((address, 53)).with_context(|| {
        format!(
            "listen on {address}:53: run this as root, or set net.ipv4.ip_unprivileged_port_start"
        )
    })?;
    socket.set_read_timeout(Some(wait::PATIENCE))?;
    Ok((address, socket))
}

/// Waits until a question has come, to which nobody answers.
async fn asked(server: UdpSocket) -> Result<UdpSocket> {
    let hear = move || server.recv_from(&mut [0; 512]).map(|_| server);
    tokio::task::spawn_blocking(hear).await?.context("wait for a question")
}

/// Looks a name up for longer than the test takes.
fn asks(test: &Test<'_>, server: Ipv4Addr) -> Value {
    let mut spec = never(test, "p2", &["resolve", "nobody.example.com."]);
    spec["dnsPolicy"] = json!("None");
    spec["dnsConfig"] = json!({
        "nameservers": [server],
        "options": [{ "name": "timeout", "value": "30" }, { "name": "attempts", "value": "5" }],
    });
    spec
}

async fn killed_once(test: &Test<'_>, pod: &Pod) -> Result<()> {
    let name = pod.metadata.name.as_deref().context("a name")?;
    let end = status::terminated(pod).context("an end")?;
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("Error")), "{name}");
    let about = ListParams::default().fields(&format!("involvedObject.name={name},reason=Killing"));
    let events = test.api::<Event>().list(&about).await?.items;
    let said: Vec<_> = events.iter().map(|event| (event.message.as_deref(), event.count)).collect();
    assert_eq!(said, [(Some("Stopping container main"), Some(1))], "{name}");
    Ok(())
}
