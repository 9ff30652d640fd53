//! What is counted of images.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nodule_image::{Collect, Keyring, Reference, Verification};
use tokio::sync::Notify;

use crate::node::{Node, command, compile, keyring, module};
use crate::registry::{Door, Fault, Registry, sha};

const OPERATIONS: &str = "kubelet_runtime_operations_total{operation_type=\"pull_image\"}";
const ERRORS: &str = "kubelet_runtime_operations_errors_total{operation_type=\"pull_image\"}";
const PULLS: &str = "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"0-10MB\"}";
const DOWNLOADED: &str = "nodule_image_downloaded_bytes_total";
const IN_PROGRESS: &str = "nodule_image_pulls_in_progress";
const INTENTS: &str = "kubelet_imagemanager_ondisk_pullintents";
const RECORDS: &str = "kubelet_imagemanager_ondisk_pulledrecords";

#[tokio::test]
async fn pulls_are_counted_by_size_and_end_and_what_they_download_once() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    let node = Node::new(&registry).await;
    assert_eq!((node.counted(OPERATIONS), node.counted(DOWNLOADED)), (None, Some(0.0)));

    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    let downloaded = node.counted(DOWNLOADED).unwrap();
    node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    node.pull(&format!("{}/none:1", registry.host)).await.unwrap_err();

    assert!(downloaded > 0.0 && downloaded < image.size as f64, "blobs, and not the manifest");
    assert_eq!(node.counted(DOWNLOADED), Some(downloaded), "nothing is fetched twice");
    let counts = [OPERATIONS, ERRORS, PULLS, IN_PROGRESS].map(|name| node.counted(name).unwrap());
    assert_eq!(counts, [3.0, 1.0, 2.0, 0.0]);
    let took = "kubelet_runtime_operations_duration_seconds_count{operation_type=\"pull_image\"}";
    assert_eq!(node.counted(took), Some(3.0));
    let kinds = "kubelet_image_pull_duration_seconds_bucket{image_size_in_bytes=\"0-10MB\",le=";
    for bucket in ["\"1\"}", "\"3600\"}", "\"+Inf\"}"] {
        assert!(node.counted(&format!("{kinds}{bucket}")).is_some(), "{bucket}");
    }
}

#[tokio::test]
async fn a_pull_is_in_progress_and_its_proof_an_intent_until_the_image_is_there() {
    let registry = Registry::start().await;
    let program = command("");
    registry.artifact("app", "1", &program);
    let go = Arc::new(Notify::new());
    registry.fail(&format!("app/blobs/{}", sha(&program)), [Fault::After(Arc::clone(&go))]);
    let node = Node::new(&registry).await;
    let name = format!("{}/app:1", registry.host);
    let now = || [IN_PROGRESS, INTENTS, RECORDS].map(|name| node.counted(name).unwrap());

    let mut pull = Box::pin(node.pull(&name));
    let waits = async {
        while registry.busy() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        pulled = &mut pull => panic!("{pulled:?}"),
        () = waits => {}
    }
    assert_eq!(now(), [1.0, 1.0, 0.0]);
    go.notify_one();
    let image = pull.await.unwrap();
    assert_eq!(now(), [0.0, 0.0, 1.0]);

    drop(image);
    let old = Collect { high: 0, low: 0, youngest: Duration::ZERO, oldest: None };
    node.images.collect(old, BTreeSet::new()).await.unwrap();
    assert_eq!(now(), [0.0, 0.0, 0.0]);
    let collected = |reason| {
        node.counted(&format!("kubelet_image_garbage_collected_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!((collected("space"), collected("age")), (Some(1.0), None));
    let removed = "kubelet_runtime_operations_total{operation_type=\"remove_image\"}";
    assert_eq!(node.counted(removed), Some(1.0));
}

#[tokio::test]
async fn an_image_that_is_too_old_is_counted_as_such() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    let node = Node::new(&registry).await;
    drop(node.pull(&format!("{}/app:1", registry.host)).await.unwrap());
    let old = Collect { high: 100, low: 100, oldest: Some(Duration::ZERO), ..Collect::default() };
    let collected = node.images.collect(old, BTreeSet::new()).await.unwrap();
    assert_eq!(collected.aged, 1);
    let series = "kubelet_image_garbage_collected_total{reason=\"age\"}";
    assert_eq!(node.counted(series), Some(1.0));
}

#[tokio::test]
async fn each_look_for_a_right_to_an_image_is_counted_by_what_it_found() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    registry.lock_with(Door::Basic("bob", "right"));
    let allowed = format!("{}/other", registry.host);
    let node = Node::with(&registry, |config| {
        config.verification = Verification::NeverAllowed(vec![allowed]);
    })
    .await;
    let own = keyring(&[(&registry.host, "bob", "right")]);
    let name = format!("{}/app:1", registry.host);
    let image = node.pull_with(&name, &own).await.unwrap();
    let mut listed = image.clone();
    listed.reference = Reference::parse(&format!("{}/other:1", registry.host)).unwrap();

    assert!(node.images.permits(&image, &own).unwrap());
    assert!(!node.images.permits(&image, &Keyring::default()).unwrap());
    assert!(node.images.permits(&listed, &Keyring::default()).unwrap());
    let proofs = node.root().join("access").join(&node.files("access")[0]);
    std::fs::remove_file(&proofs).unwrap();
    std::fs::create_dir(&proofs).unwrap();
    node.images.permits(&image, &own).unwrap_err();

    for result in ["credentialRecordFound", "mustAuthenticate", "credentialPolicyAllowed", "error"]
    {
        let series =
            format!("kubelet_imagemanager_image_mustpull_checks_total{{result=\"{result}\"}}");
        assert_eq!(node.counted(&series), Some(1.0), "{result}");
    }
}

#[tokio::test]
async fn code_that_was_compiled_before_is_a_hit() {
    let registry = Registry::start().await;
    registry.artifact("app", "1", &command(""));
    let node = Node::new(&registry).await;
    let image = node.pull(&format!("{}/app:1", registry.host)).await.unwrap();
    for _ in 0..3 {
        compile(&node.images, &image).await.unwrap();
    }
    let asked = |result| {
        node.counted(&format!("nodule_compiled_code_requests_total{{result=\"{result}\"}}"))
    };
    assert_eq!((asked("miss"), asked("hit")), (Some(1.0), Some(2.0)));
}

/// Labels are of a known number whatever is pulled: no name of an image, a registry or a pod is one.
#[tokio::test]
async fn there_are_as_many_series_for_a_hundred_images_as_for_one() {
    let registry = Registry::start().await;
    let node = Node::new(&registry).await;
    let mut series = Vec::new();
    for number in 0..100 {
        let name = format!("app{number}");
        registry.artifact(&name, "1", &module(&name));
        node.pull(&format!("{}/{name}:1", registry.host)).await.unwrap();
        series.push(node.metrics.gather().iter().map(|one| one.get_metric().len()).sum::<usize>());
    }
    assert_eq!(series[0], series[99]);
}
