//! An agent that dies at each step of a pod's life in turn: the next one finishes it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// A pod's life has at least so many places where a crash may leave something half done.
const AT_LEAST: u32 = 12;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

#[tokio::test]
async fn whenever_the_agent_dies_the_next_one_finishes_the_job() -> Result<()> {
    test::run(async |test| {
        let mut step = 0;
        loop {
            step += 1;
            let crashed = life(test, step).await.with_context(|| format!("step {step}"))?;
            if !crashed {
                break;
            }
        }
        ensure!(step > AT_LEAST, "there were no more than {step} steps");
        Ok(())
    })
    .await
}

/// A pod's whole life, with an agent that dies at this step of it. False if it has no such step.
async fn life(test: &mut Test<'_>, step: u32) -> Result<bool> {
    let name = format!("step-{step}");
    test.agent.stop()?;
    test.agent.start_to_crash(step)?;
    let mut spec = test.spec(&["lines", "3", "1"]);
    spec["restartPolicy"] = json!("Never");
    spec["initContainers"] = json!([{ "name": "first", "image": test.image("examples/probe:p1"), "args": ["exit", "0"] }]);
    test.pod(&name, spec).await?;
    let crashed =
        dies_or(test, &name, |pod| pod.is_some_and(|pod| status::phase(pod) == "Succeeded"));
    let mut crashed = crashed.await?;
    let ended =
        test.pod_until(&name, "to succeed", |pod| status::phase(pod) == "Succeeded").await?;
    for container in ["first", "main"] {
        let status = ended.status.as_ref().context("a status")?;
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        let one = all.into_iter().find(|one| one.name == container).context("its status")?;
        ensure!(one.restart_count == 0, "{container} ran again");
    }
    let (log, died) = timeout(wait::PATIENCE, log(test, &name)).await.context("no log")??;
    ensure!(log == "line 1\nline 2\nline 3\n", "its log: {log:?}");
    crashed |= died;
    test.kubectl(&["delete", "pod", &name, "--wait=false"])?;
    crashed |= dies_or(test, &name, |pod| pod.is_none()).await?;
    wait::until(test.api::<Pod>(), wait::named(&name), "it to go", <[_]>::is_empty).await?;
    crashed |=
        timeout(wait::PATIENCE, cleaned(test)).await.context("something of it is left")??;
    ensure!(test.agent.sandboxes().is_empty(), "a container runs on");
    Ok(crashed)
}

/// The pod's log, and whether the agent died before it gave it: a status may be the last that it did.
async fn log(test: &mut Test<'_>, name: &str) -> Result<(String, bool)> {
    let mut crashed = false;
    loop {
        let answer = test.kubectl(&["logs", name]);
        if let Ok(log) = answer {
            return Ok((log, crashed));
        }
        sleep(BETWEEN_LOOKS).await;
        if test.agent.has_crashed()? {
            test.agent.start_again()?;
            crashed = true;
        } else if !crashed {
            return Ok((answer?, crashed));
        }
    }
}

/// Waits until nothing of any pod is left, whether the agent dies meanwhile or not; true if it did.
async fn cleaned(test: &mut Test<'_>) -> Result<bool> {
    let pods = test.agent.file("root").join("pods");
    let mut crashed = false;
    while std::fs::read_dir(&pods).is_ok_and(|mut left| left.next().is_some()) {
        if test.agent.has_crashed()? {
            test.agent.start_again()?;
            crashed = true;
        }
        sleep(BETWEEN_LOOKS).await;
    }
    Ok(crashed)
}

/// Waits until the pod is as wanted, or the agent has died; then another one is started, and it is true.
async fn dies_or(
    test: &mut Test<'_>,
    name: &str,
    wanted: impl Fn(Option<&Pod>) -> bool,
) -> Result<bool> {
    let look = async {
        loop {
            if test.agent.has_crashed()? {
                test.agent.start_again()?;
                return Ok(true);
            }
            if wanted(test.api::<Pod>().get_opt(name).await?.as_ref()) {
                return Ok(false);
            }
            sleep(BETWEEN_LOOKS).await;
        }
    };
    timeout(wait::PATIENCE, look).await.context("neither came")?
}
