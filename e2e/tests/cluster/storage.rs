//! Pods that use more of the disk than they may.

use anyhow::Result;
use k8s_openapi::api::core::v1::Event;
use nodule_e2e::{status, test, wait};
use serde_json::{Value, json};

/// Its two containers share a volume: one fills it and ends, the other stays.
fn spec(image: &str, mut spec: Value, size: &str) -> Value {
    let fill = "x".repeat(96 << 10);
    let container = |name: &str, arguments: &[&str]| {
        let mount = json!({ "name": "data", "mountPath": "/data" });
        json!({ "name": name, "image": image, "args": arguments, "volumeMounts": [mount] })
    };
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = json!([{ "name": "data", "emptyDir": { "sizeLimit": size } }]);
    spec["containers"] = json!([
        container("fills", &["write", "/data/full", &fill]),
        container("main", &["lines", "0", "100"]),
    ]);
    spec
}

#[tokio::test]
async fn a_pod_whose_empty_dir_is_over_its_size_limit_is_evicted_and_its_neighbour_is_not()
-> Result<()> {
    const MESSAGE: &str = "Usage of EmptyDir volume \"data\" exceeds the limit \"64Ki\".";
    test::run(async |test| {
        let image = test.image("examples/probe:p1");
        test.pod("fits", spec(&image, test.spec(&[]), "1Mi")).await?;
        test.pod("over", spec(&image, test.spec(&[]), "64Ki")).await?;
        test.pod_until("over", "to have failed", |pod| status::phase(pod) == "Failed").await?;
        let events = |events: &[Event]| {
            events.iter().any(|event| event.reason.as_deref() == Some("Evicted"))
        };
        wait::until(test.api::<Event>(), wait::all(), "the Event", events).await?;

        let told = test.kubectl(&["describe", "pod", "over"])?;
        let line = |key: &str| {
            let value = told.lines().find_map(|line| line.strip_prefix(key));
            value.unwrap_or_default().trim().to_owned()
        };
        assert_eq!((line("Reason:").as_str(), line("Message:").as_str()), ("Evicted", MESSAGE));
        let event = told.lines().find(|line| line.contains("Warning") && line.contains("Evicted"));
        assert!(event.is_some_and(|event| event.ends_with(MESSAGE)), "{told}");
        test.pod_until("fits", "to run on", |pod| status::running(pod).is_some()).await?;
        Ok(())
    })
    .await
}
