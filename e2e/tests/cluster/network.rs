//! What pods reach by the network, and how they find names.

use anyhow::Result;
use nodule_e2e::{status, test};
use serde_json::{Value, json};

/// A pod of a component that runs once.
fn spec(test: &test::Test<'_>, arguments: &[&str]) -> Value {
    let mut spec = test.spec(arguments);
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["image"] = json!(test.image("examples/probe:p2"));
    spec
}

#[tokio::test]
async fn a_pods_own_aliases_are_names() -> Result<()> {
    test::run(async |test| {
        let mut pod = spec(test, &["resolve", "db", "DB.example.com"]);
        pod["hostAliases"] = json!([{ "ip": "192.0.2.7", "hostnames": ["db", "db.example.com"] }]);
        test.pod("names", pod).await?;
        let done = |pod: &_| status::phase(pod) == "Succeeded";
        test.pod_until("names", "to have succeeded", done).await?;
        assert_eq!(test.kubectl(&["logs", "names"])?, "192.0.2.7\n192.0.2.7\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_pod_reaches_the_metadata_of_a_cloud() -> Result<()> {
    test::run(async |test| {
        test.pod("curious", spec(test, &["connect", "169.254.169.254:80", "GET /"])).await?;
        let done = |pod: &_| status::phase(pod) == "Failed";
        test.pod_until("curious", "to have failed", done).await?;
        let log = test.kubectl(&["logs", "curious"])?;
        assert!(log.contains("connect 169.254.169.254:80: Permission denied"), "{log}");
        Ok(())
    })
    .await
}
