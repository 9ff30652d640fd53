use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

use crate::node::Node;

/// `GET /pods`: a `v1.PodList`.
pub(crate) async fn list(State(node): State<Arc<Node>>) -> Json<List<Pod>> {
    Json(List { items: (node.pods)(), ..List::default() })
}
