//! A registry in this process, on a loopback socket, that misbehaves as it is told.
//!
//! One request per connection, and bytes written by hand: faults are faults of bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The length of a body "without end": beyond every limit, but a client that keeps all of it
/// fails its test and fills no disk.
const ENDLESS: usize = 32 << 20;
const PIECE: usize = 64 << 10;
/// The first byte of a TLS handshake.
const TLS_RECORD: u8 = 22;
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What happens to one request.
#[derive(Clone)]
pub(crate) enum Fault {
    /// Another status, more header lines (each ended by CR LF), and a body.
    Status(u16, String, String),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body; the connection stays.
    Silence(usize),
    /// A status, and a body without end.
    Endless(u16),
    /// Another body, whole.
    Body(Vec<u8>),
    /// A body of one byte at a time.
    Drip,
    /// All content, whatever part was asked for.
    NoRange,
    /// The right answer, once this was notified.
    After(Arc<Notify>),
}

/// Whom the registry answers.
#[derive(Clone, Default)]
pub(crate) enum Door {
    #[default]
    Open,
    /// User and password with each request.
    Basic(&'static str, &'static str),
    /// A token, for this user and password or, without them, for everybody.
    Bearer(Option<(&'static str, &'static str)>),
    /// A token for everybody, asked for in these words.
    Challenge(String),
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

#[derive(Default)]
struct State {
    content: Mutex<HashMap<String, (&'static str, Vec<u8>)>>,
    faults: Mutex<HashMap<String, VecDeque<Fault>>>,
    door: Mutex<Door>,
    seen: Mutex<Vec<Seen>>,
    busy: Mutex<(usize, usize)>,
}

/// Ends with its connections when it is dropped.
pub(crate) struct Registry {
    pub(crate) host: String,
    state: Arc<State>,
    _server: JoinSet<()>,
}

pub(crate) fn sha(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha(content), "size": content.len() })
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::<State>::default();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, host.clone(), state.clone()));
        Self { host, state, _server: server }
    }

    pub(crate) fn lock_with(&self, door: Door) {
        *self.state.door.lock().unwrap() = door;
    }

    /// Keeps content under a path below `/v2/`.
    pub(crate) fn put(&self, path: &str, media_type: &'static str, content: &[u8]) {
        let mut all = self.state.content.lock().unwrap();
        all.insert(format!("/v2/{path}"), (media_type, content.to_vec()));
    }

    pub(crate) fn blob(&self, repository: &str, content: &[u8]) {
        let path = format!("{repository}/blobs/{}", sha(content));
        self.put(&path, "application/octet-stream", content);
    }

    /// Keeps a manifest under a tag and its digest.
    pub(crate) fn manifest(
        &self,
        repository: &str,
        tag: &str,
        kind: &'static str,
        manifest: &Value,
    ) -> String {
        let content = manifest.to_string().into_bytes();
        self.put(&format!("{repository}/manifests/{tag}"), kind, &content);
        self.put(&format!("{repository}/manifests/{}", sha(&content)), kind, &content);
        sha(&content)
    }

    /// Pushes an image of one layer.
    pub(crate) fn push(
        &self,
        repository: &str,
        tag: &str,
        (config_type, config): (&str, &[u8]),
        (layer_type, layer): (&str, &[u8]),
    ) -> String {
        self.blob(repository, config);
        self.blob(repository, layer);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config_type, config),
            "layers": [descriptor(layer_type, layer)],
        });
        self.manifest(repository, tag, MANIFEST, &manifest)
    }

    /// Pushes a CNCF Wasm artifact; its digest.
    pub(crate) fn artifact(&self, repository: &str, tag: &str, wasm: &[u8]) -> String {
        let config = json!({ "architecture": "wasm", "os": "wasip1", "layerDigests": [sha(wasm)] });
        let config = config.to_string().into_bytes();
        let config = ("application/vnd.wasm.config.v0+json", &*config);
        self.push(repository, tag, config, ("application/wasm", wasm))
    }

    /// Misbehaves at the next requests of a path below `/v2/`, in order.
    pub(crate) fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.fail(format!("/v2/{path}"), faults);
    }

    /// No longer misbehaves.
    pub(crate) fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// Misbehaves at the next requests of a token.
    pub(crate) fn fail_token(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.fail("/token".to_owned(), faults);
    }

    /// All requests of paths that contain `part`.
    pub(crate) fn seen(&self, part: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.path.contains(part)).cloned().collect()
    }

    /// Requests in progress now.
    pub(crate) fn busy(&self) -> usize {
        self.state.busy.lock().unwrap().0
    }

    /// The most requests that were in progress at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.busy.lock().unwrap().1
    }
}

impl State {
    fn fail(&self, path: String, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().entry(path).or_default().extend(faults);
    }

    fn fault(&self, request: &Seen) -> Option<Fault> {
        let path = request.path.split('?').next().unwrap_or_default();
        self.faults.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front)
    }

    fn found(&self, request: &Seen) -> (&'static str, Vec<u8>) {
        if request.path.starts_with("/token") {
            return ("application/json", br#"{"token":"pass"}"#.to_vec());
        }
        let path = request.path.split('?').next().unwrap_or_default();
        self.content.lock().unwrap().get(path).cloned().unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, host: String, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (host, state) = (host.clone(), state.clone());
        connections.spawn(async move {
            let _ = answer(stream, &host, &state).await;
        });
    }
}

async fn answer(stream: TcpStream, host: &str, state: &State) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if stream.fill_buf().await?.first() == Some(&TLS_RECORD) {
        return write(&mut stream, "400 Bad Request\r\n".to_owned(), b"this is plain HTTP").await;
    }
    let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
    state.seen.lock().unwrap().push(request.clone());
    let fault = state.fault(&request);
    let door = state.door.lock().unwrap().clone();
    if let Some(refusal) = door.refuse(&request, host) {
        return write(&mut stream, refusal, b"{}").await;
    }
    let (kind, content) = state.found(&request);
    let count = |step: fn(usize) -> usize| {
        let mut busy = state.busy.lock().unwrap();
        busy.0 = step(busy.0);
        busy.1 = busy.1.max(busy.0);
    };
    count(|now| now + 1);
    match fault {
        Some(Fault::After(go)) => go.notified().await,
        Some(fault) => {
            count(|now| now - 1);
            return misbehave(&mut stream, fault, kind, &content).await;
        }
        None => {}
    }
    // Before the answer: a client with an answer may come again at once.
    count(|now| now - 1);
    if kind.is_empty() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"nothing here"}]}"#;
        return write(&mut stream, "404 Not Found\r\n".to_owned(), body).await;
    }
    whole_or_rest(&mut stream, &request, kind, &content).await
}

async fn whole_or_rest(
    stream: &mut BufReader<TcpStream>,
    request: &Seen,
    kind: &str,
    content: &[u8],
) -> std::io::Result<()> {
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let Some(from) = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok())
    else {
        return write(stream, format!("200 OK\r\ncontent-type: {kind}\r\n"), content).await;
    };
    let Some(rest) = content.get(from..).filter(|rest| !rest.is_empty()) else {
        return write(stream, "416 Range Not Satisfiable\r\n".to_owned(), b"").await;
    };
    let (last, all) = (content.len() - 1, content.len());
    let head = format!("206 Partial Content\r\ncontent-range: bytes {from}-{last}/{all}\r\n");
    write(stream, head, rest).await
}

async fn misbehave(
    stream: &mut BufReader<TcpStream>,
    fault: Fault,
    kind: &str,
    content: &[u8],
) -> std::io::Result<()> {
    let ok = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: {kind}\r\n");
    let sized = format!("{ok}content-length: {}\r\n\r\n", content.len());
    match fault {
        Fault::Status(status, headers, body) => {
            write(stream, format!("{status} Fault\r\n{headers}"), body.as_bytes()).await
        }
        Fault::Cut(len) | Fault::Silence(len) => {
            stream.write_all(sized.as_bytes()).await?;
            stream.write_all(&content[..len]).await?;
            stream.flush().await?;
            if matches!(fault, Fault::Silence(_)) {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        Fault::Endless(status) => {
            let head = format!("HTTP/1.1 {status} Fault\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..ENDLESS / PIECE {
                stream.write_all(&[b' '; PIECE]).await?;
            }
            Ok(())
        }
        Fault::Body(body) => {
            write(stream, format!("200 OK\r\ncontent-type: {kind}\r\n"), &body).await
        }
        Fault::Drip => {
            stream.write_all(sized.as_bytes()).await?;
            for byte in content {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        Fault::NoRange | Fault::After(_) => {
            write(stream, format!("200 OK\r\ncontent-type: {kind}\r\n"), content).await
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Seen>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Ok(Some(Seen { path: path.to_owned(), headers }))
}

/// `head` is the status and header lines, each ended.
async fn write(
    stream: &mut BufReader<TcpStream>,
    head: String,
    body: &[u8],
) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    stream.get_mut().shutdown().await
}

impl Door {
    /// The head of a refusal, or of a token: none if the request may pass.
    fn refuse(&self, request: &Seen, host: &str) -> Option<String> {
        let given = request.headers.get("authorization").map(String::as_str);
        let challenge =
            |text: String| Some(format!("401 Unauthorized\r\nwww-authenticate: {text}\r\n"));
        match self {
            Self::Open => None,
            Self::Basic(user, password) if given == Some(&*basic(user, password)) => None,
            Self::Basic(..) => challenge("Basic realm=\"here\"".to_owned()),
            Self::Bearer(Some((user, password))) if request.path.starts_with("/token") => {
                (given != Some(&*basic(user, password))).then(|| "401 Unauthorized\r\n".to_owned())
            }
            Self::Bearer(None) | Self::Challenge(_) if request.path.starts_with("/token") => None,
            Self::Bearer(_) | Self::Challenge(_) if given == Some("Bearer pass") => None,
            Self::Challenge(text) => challenge(text.replace("HOST", host)),
            Self::Bearer(_) => {
                challenge(format!("Bearer realm=\"http://{host}/token\",service=\"s\""))
            }
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
