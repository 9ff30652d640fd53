use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tracing::error;

/// Prometheus' text format, as the kubelet says it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is counted on this node, by where it is shown. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// `/metrics`: the node's own work.
    pub node: Registry,
    /// `/metrics/probes`: the probes of containers.
    pub probes: Registry,
}

pub(crate) fn router(metrics: Metrics) -> Router {
    let Metrics { node, probes } = metrics;
    Router::new()
        .route("/metrics", get(async move || show(&node)))
        .route("/metrics/probes", get(async move || show(&probes)))
}

fn show(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "metrics not shown");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}
