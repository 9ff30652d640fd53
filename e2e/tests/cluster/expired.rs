//! What a watch goes on from is no longer kept: the agent lists its pods anew.

use std::iter::repeat_n;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};

use crate::asked::{Asked, Fault};
use crate::proxy::Proxy;
use crate::said::on_node;

/// The shortest wait before a list that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_watch_that_has_expired_begins_anew_and_misses_nothing() -> Result<()> {
    test::run(async |test| {
        let proxy = Proxy::before(test).await?;
        test.pod("stays", on_node(test)).await?;
        test.pod_until("stays", "to be Ready", status::is_ready).await?;
        // An API server that is behind refuses the list, too.
        for refused in [0, 2] {
            expires(test, &proxy, refused).await.with_context(|| format!("{refused} refused"))?;
        }
        Ok(())
    })
    .await
}

/// The watch expires while one pod goes and another comes unseen; the first lists after that are refused.
async fn expires(test: &Test<'_>, proxy: &Proxy, refused: usize) -> Result<()> {
    let (goes, comes) = (format!("goes-{refused}"), format!("comes-{refused}"));
    let stayed = test.agent.sandboxes();
    test.pod(&goes, on_node(test)).await?;
    test.pod_until(&goes, "to be Ready", status::is_ready).await?;
    let before = test.agent.sandboxes();
    ensure!(before.len() == stayed.len() + 1, "one container more: {stayed:?}, {before:?}");

    proxy.hush();
    let forced = DeleteParams::default().grace_period(0);
    test.api::<Pod>().delete(&goes, &forced).await?;
    test.pod(&comes, on_node(test)).await?;
    let looks = looks_for_pods(proxy).len();
    proxy.fail("list pods", "", repeat_n(Fault::Code(410), refused));
    proxy.expire();

    test.pod_until(&comes, "to be Ready", status::is_ready).await?;
    let as_many = || (test.agent.sandboxes().len() == before.len()).then_some(());
    wait::found("the end of the pod that went", as_many).await?;
    let stays = test.pod_until("stays", "to be Ready", status::is_ready).await?;
    ensure!(status::restarts(&stays) == 0, "it was started again");
    let now = test.agent.sandboxes();
    ensure!(stayed.iter().all(|one| now.contains(one)), "one has ended: {stayed:?}, {now:?}");

    let looks = looks_for_pods(proxy).split_off(looks);
    let kinds: Vec<_> = looks.iter().map(|asked| asked.what.as_str()).collect();
    ensure!(kinds == vec!["list pods"; refused + 1], "lists until one is answered: {kinds:?}");
    for (one, next) in looks.iter().zip(looks.iter().skip(1)) {
        ensure!(next.at.duration_since(one.at) >= PAUSE, "a tight loop: {looks:?}");
    }
    Ok(())
}

/// Whenever the agent has listed or watched its pods.
fn looks_for_pods(proxy: &Proxy) -> Vec<Asked> {
    let mut asked = proxy.asked();
    asked.retain(|asked| ["list pods", "watch pods"].contains(&asked.what.as_str()));
    asked
}
