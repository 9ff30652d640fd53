//! Registries that send nothing for minutes, which pass at once.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, advance, pause, resume, timeout};

use crate::node::{Node, module, program, told};
use crate::registry::{Fault, Registry, sha};

const MINUTE: Duration = Duration::from_secs(60);
/// For what else would end a request.
const LONG: Duration = Duration::from_secs(3600);

/// A node that waits for its default of silence, and for one answer `idle`.
async fn node(registry: &Registry, idle: Duration) -> Node {
    let change = |config: &mut nodule_image::Config| {
        (config.patience.connect, config.patience.answer) = (LONG, LONG);
        config.patience.idle = idle;
        config.patience.pace.bytes = 0;
    };
    Node::with(registry, change).await
}

/// Pushes a program as an artifact that has no configuration to be downloaded; the path of its layer.
fn push(registry: &Registry, wasm: &[u8]) -> String {
    let config = ("application/vnd.oci.empty.v1+json", &b"{}"[..]);
    registry.push("app", "1", config, ("application/wasm", wasm));
    format!("app/blobs/{}", sha(wasm))
}

/// Waits for so many bytes of images to have come, and lets time pass then.
async fn passes(time: Duration, node: &Node, after: f64) {
    let come = || node.counted("nodule_image_downloaded_bytes_total").unwrap_or_default();
    while come() < after {
        yield_now().await;
    }
    pause();
    advance(time).await;
    resume();
}

#[tokio::test]
async fn all_who_pull_an_image_of_which_nothing_comes_are_told_after_five_minutes_and_go_on_later()
{
    let registry = Registry::start().await;
    let wasm = module(&"abcdefgh".repeat(1000));
    let blob = push(&registry, &wasm);
    registry.fail(&blob, [Fault::Silence(100), Fault::Silence(100)]);
    let node = node(&registry, LONG).await;
    let name = format!("{}/app:1", registry.host);

    let begun = Instant::now();
    let pulls = async { tokio::join!(node.pull(&name), node.pull(&name)) };
    let pulls = timeout(6 * MINUTE, pulls);
    let (pulls, ()) = tokio::join!(pulls, passes(5 * MINUTE, &node, 100.0));

    let (first, second) = pulls.expect("the second has waited, too");
    assert!(begun.elapsed() >= 5 * MINUTE);
    for pull in [first, second] {
        let (text, reason) = told(&registry, pull);
        assert!(
            text.contains("nothing of the image came within 300s, whoever was asked"),
            "{text}"
        );
        assert!(text.contains("check the network between this node and the registry"), "{text}");
        assert_eq!(reason, "ErrImagePull");
    }
    assert_eq!(node.files("partial").len(), 1);
    registry.heal();
    let image = node.pull(&name).await.unwrap();
    assert_eq!(std::fs::read(program(&image).wasm).unwrap(), wasm);
}

#[tokio::test]
async fn what_comes_now_and_then_is_waited_for_longer() {
    let registry = Registry::start().await;
    let wasm = module(&"abcdefgh".repeat(1000));
    let blob = push(&registry, &wasm);
    registry.fail(&blob, [Fault::Silence(100), Fault::Silence(200)]);
    let node = node(&registry, 3 * MINUTE).await;
    let name = format!("{}/app:1", registry.host);

    let (pulled, ()) = tokio::join!(node.pull(&name), async {
        passes(3 * MINUTE, &node, 100.0).await;
        passes(3 * MINUTE, &node, 300.0).await;
    });

    pulled.unwrap();
    assert_eq!(registry.seen(&blob).len(), 3);
}
