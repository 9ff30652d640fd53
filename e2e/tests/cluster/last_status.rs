//! The last status of a pod that is deleted cannot be told at once: the pod stays until it has been.

use std::iter::repeat_n;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;

use crate::asked::{Asked, Fault};
use crate::proxied::nothing_is_left;
use crate::proxy::Proxy;
use crate::said::on_node;

/// More refusals than there are tries before they are mended.
const MANY: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pod_goes_only_when_its_last_status_has_been_taken() -> Result<()> {
    test::run(async |test| {
        let proxy = Proxy::before(test).await?;
        for fault in [Fault::Code(500), Fault::Code(409), Fault::Lost] {
            test.pod("ends", on_node(test)).await?;
            test.pod_until("ends", "to be Ready", status::is_ready).await?;
            let before = proxy.asked().len();
            // The first status of its end, and the one after.
            proxy.fail("patch pods/status", "ends", [fault, fault]);
            test.kubectl(&["delete", "pod", "ends", "--wait=false"])?;
            goes(test, &proxy, before).await.with_context(|| format!("{fault:?}"))?;
            proxy.all_met().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_that_dies_before_or_after_the_last_status_tells_it_once_it_is_back() -> Result<()>
{
    test::run(async |test| {
        let proxy = Proxy::before(test).await?;
        for (what, told) in [("patch pods/status", false), ("delete pods", true)] {
            test.pod("ends", on_node(test)).await?;
            test.pod_until("ends", "to be Ready", status::is_ready).await?;
            let before = proxy.asked().len();
            proxy.fail(what, "ends", repeat_n(Fault::Code(500), MANY));
            test.kubectl(&["delete", "pod", "ends", "--wait=false"])?;
            let refused = || {
                let asked = proxy.asked().split_off(before);
                let mut refused = asked.iter().filter(|asked| asked.what == what);
                refused.any(|asked| told || is_last(asked)).then_some(())
            };
            wait::found("the last status, or the deletion", refused).await?;
            test.agent.kill()?;
            let there = test.api::<Pod>().get("ends").await?;
            ensure!(status::terminated(&there).is_some() == told, "{what}: {there:?}");
            proxy.mend();
            test.agent.start_again()?;
            goes(test, &proxy, before).await.context(what)?;
        }
        Ok(())
    })
    .await
}

/// Sees the pod go, with how its container ended told before, and nothing left of it.
async fn goes(test: &Test<'_>, proxy: &Proxy, before: usize) -> Result<()> {
    wait::until(test.api::<Pod>(), wait::named("ends"), "it to go", <[_]>::is_empty).await?;
    nothing_is_left(test).await?;
    let asked = proxy.asked().split_off(before);
    let own =
        |what: &'static str| asked.iter().filter(move |one| one.what == what && one.name == "ends");
    let mut told = own("patch pods/status").filter(|one| is_last(one));
    let told = told.find_map(|one| one.answered.filter(|(_, code)| *code == 200));
    let (told, _) = told.context("its last status was not taken")?;
    ensure!(own("delete pods").all(|one| one.at > told), "it was deleted too soon: {asked:?}");
    ensure!(own("delete pods").count() > 0, "it was not the agent that deleted it");
    Ok(())
}

/// Whether this is a status that says how the container ended.
fn is_last(asked: &Asked) -> bool {
    let terminated = "/status/containerStatuses/0/state/terminated/exitCode";
    asked.body.pointer(terminated).is_some_and(|code| *code == json!(137))
}
