//! A registry on a loopback socket that holds guests in the text format, compiled to artifacts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// By path: the media type and the content.
type Content = Arc<HashMap<String, (&'static str, Vec<u8>)>>;
/// What a long blob waits for before its end.
type Stalls = Option<Arc<Notify>>;
type Held = (String, (&'static str, Vec<u8>));

/// The registry. Ended when dropped.
pub(crate) struct Registry {
    pub(crate) host: String,
    _tasks: JoinSet<()>,
}

impl Registry {
    /// Holds each guest as the image of its name.
    pub(crate) async fn start(guests: &[(&str, &str)]) -> Self {
        Self::holding(guests.iter().flat_map(|(name, wat)| image(name, wat)).collect()).await
    }

    /// As `with_model`; of blobs that are longer than a MB all but the last byte comes, until this is notified.
    pub(crate) async fn stalling(
        guests: &[(&str, &str)],
        files: &[(&str, &[u8])],
        go_on: Arc<Notify>,
    ) -> Self {
        let guests = guests.iter().flat_map(|(name, wat)| image(name, wat));
        Self::serving(guests.chain(model(files)).collect(), Some(go_on)).await
    }

    /// Holds guests, and an artifact `model` whose layers are these files, with their titles.
    pub(crate) async fn with_model(guests: &[(&str, &str)], files: &[(&str, &[u8])]) -> Self {
        let guests = guests.iter().flat_map(|(name, wat)| image(name, wat));
        Self::holding(guests.chain(model(files)).collect()).await
    }

    async fn holding(content: Vec<Held>) -> Self {
        Self::serving(content, None).await
    }

    async fn serving(content: Vec<Held>, stalls: Option<Arc<Notify>>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let content: Content = Arc::new(content.into_iter().collect());
        let router = Router::new().fallback(answer).with_state((content, stalls));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, _tasks: tasks }
    }

    /// Holds one guest as an image of files, as `/bin/GUEST.wasm` beside `/etc/motd`, with this configuration.
    pub(crate) async fn rooted(name: &str, wat: &str, config: &Value) -> Self {
        Self::holding(rooted(name, wat, config)).await
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.host)
    }
}

/// The CNCF Wasm artifact: its manifest and its blobs.
fn image(name: &str, wat: &str) -> Vec<Held> {
    let wasm = wat::parse_str(wat).unwrap();
    let config = json!({"architecture": "wasm", "os": "wasip1", "layerDigests": [sha(&wasm)]});
    let config = ("application/vnd.wasm.config.v0+json", config.to_string().into_bytes());
    pushed(name, config, ("application/wasm", wasm))
}

fn rooted(name: &str, wat: &str, config: &Value) -> Vec<Held> {
    let mut archive = tar::Builder::new(Vec::new());
    let wasm = wat::parse_str(wat).unwrap();
    for (path, content) in [("bin/guest.wasm", &*wasm), ("etc/motd", b"hello")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    }
    let layer = archive.into_inner().unwrap();
    let config = json!({"architecture": "wasm", "os": "wasi", "config": config,
                        "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]}});
    let config = ("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    pushed(name, config, ("application/vnd.oci.image.layer.v1.tar", layer))
}

fn model(files: &[(&str, &[u8])]) -> Vec<Held> {
    let layer = |(title, content): &(&str, &[u8])| {
        let mut layer = descriptor("application/vnd.example.model", content);
        layer["annotations"] = json!({"org.opencontainers.image.title": title});
        layer
    };
    let config = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let layers: Vec<_> = files.iter().map(layer).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
                          "artifactType": "application/vnd.example.model", "layers": layers});
    let manifest = manifest.to_string().into_bytes();
    let blobs = files.iter().map(|(_, content)| {
        let path = format!("/v2/model/blobs/{}", sha(content));
        (path, ("application/octet-stream", content.to_vec()))
    });
    let mut held: Vec<_> = blobs.collect();
    held.push((format!("/v2/model/manifests/{}", sha(&manifest)), (MANIFEST, manifest.clone())));
    held.push(("/v2/model/manifests/1".to_owned(), (MANIFEST, manifest)));
    held
}

fn pushed(name: &str, config: (&str, Vec<u8>), layer: (&str, Vec<u8>)) -> Vec<Held> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config.0, &config.1),
        "layers": [descriptor(layer.0, &layer.1)],
    });
    let manifest = manifest.to_string().into_bytes();
    let blob = |content: Vec<u8>| {
        (format!("/v2/{name}/blobs/{}", sha(&content)), ("application/octet-stream", content))
    };
    vec![
        (format!("/v2/{name}/manifests/{}", sha(&manifest)), (MANIFEST, manifest.clone())),
        (format!("/v2/{name}/manifests/1"), (MANIFEST, manifest)),
        blob(config.1),
        blob(layer.1),
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

async fn answer(State((content, stalls)): State<(Content, Stalls)>, request: Request) -> Response {
    let Some((kind, content)) = content.get(request.uri().path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = [("content-type", *kind)];
    match (stalls, content.split_last()) {
        (Some(go_on), Some((last, most))) if content.len() > 1_000_000 => {
            let (last, most) = (vec![*last], most.to_vec());
            let last = async move {
                go_on.notified().await;
                Ok::<_, std::convert::Infallible>(last)
            };
            let body = stream::once(async { Ok(most) }).chain(stream::once(last));
            (kind, Body::from_stream(body)).into_response()
        }
        _ => (kind, content.clone()).into_response(),
    }
}
