//! `GET /metrics` and what lies below it.

use hyper::StatusCode;
use nodule_api::Authorization::Webhook;
use nodule_api::Metrics;
use prometheus::{IntCounter, Registry};

use crate::access::knowing;
use crate::served::Served;

fn count(registry: &Registry, name: &str) -> IntCounter {
    let counter = IntCounter::new(name, "What was seen.").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter
}

#[tokio::test]
async fn each_registry_is_shown_at_its_path_as_it_is_now_in_the_text_format() {
    let served = Served::open().await;
    let Metrics { node, probes } = &served.metrics;
    let (seen, probed) = (count(node, "seen_total"), count(probes, "probed"));
    let mut client = served.admin().await;
    for times in 1..3 {
        seen.inc();
        probed.inc_by(2);
        let text = |name: &str, value: u64| {
            format!("# HELP {name} What was seen.\n# TYPE {name} counter\n{name} {value}\n")
        };
        let shown = (StatusCode::OK, text("seen_total", times));
        assert_eq!(client.get("/metrics").await, shown);
        assert_eq!(client.get("/metrics/probes").await.1, text("probed", 2 * times));
    }
    let answer = client.open("/metrics/probes").await;
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn who_may_get_the_nodes_metrics_may_see_them_and_nobody_else() {
    for (allowed, status) in
        [(&["metrics"] as &'static [_], StatusCode::OK), (&["proxy"], StatusCode::FORBIDDEN)]
    {
        let api_server = knowing(allowed).await;
        let served = Served::with(Webhook, &api_server).await;
        for path in ["/metrics", "/metrics/probes"] {
            let answer = served.stranger().await.get_with_token(path, "good").await;
            assert_eq!(answer.0, status, "{allowed:?} {path}");
            let answer = served.stranger().await.get_with_token(path, "bad").await;
            assert_eq!(answer.0, StatusCode::UNAUTHORIZED);
        }
    }
}
