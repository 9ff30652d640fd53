//! A registry on a loopback socket that holds guests in the text format, compiled to artifacts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// By path: the media type and the content.
type Content = Arc<HashMap<String, (&'static str, Vec<u8>)>>;

/// The registry. Ended when dropped.
pub(crate) struct Registry {
    pub(crate) host: String,
    _tasks: JoinSet<()>,
}

impl Registry {
    /// Holds each guest as the image of its name.
    pub(crate) async fn start(guests: &[(&str, &str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let content = Arc::new(guests.iter().flat_map(|(name, wat)| image(name, wat)).collect());
        let router = Router::new().fallback(answer).with_state(content);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, _tasks: tasks }
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.host)
    }
}

/// The CNCF Wasm artifact: its manifest and its blobs.
fn image(name: &str, wat: &str) -> Vec<(String, (&'static str, Vec<u8>))> {
    let wasm = wat::parse_str(wat).unwrap();
    let config = json!({"architecture": "wasm", "os": "wasip1", "layerDigests": [sha(&wasm)]});
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.wasm.config.v0+json", &config),
        "layers": [descriptor("application/wasm", &wasm)],
    });
    let manifest = manifest.to_string().into_bytes();
    let blob = |content: Vec<u8>| {
        (format!("/v2/{name}/blobs/{}", sha(&content)), ("application/octet-stream", content))
    };
    vec![
        (format!("/v2/{name}/manifests/{}", sha(&manifest)), (MANIFEST, manifest.clone())),
        (format!("/v2/{name}/manifests/1"), (MANIFEST, manifest)),
        blob(config),
        blob(wasm),
    ]
}

fn sha(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha(content), "size": content.len()})
}

async fn answer(State(content): State<Content>, request: Request) -> Response {
    match content.get(request.uri().path()) {
        Some((kind, content)) => ([("content-type", *kind)], content.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
