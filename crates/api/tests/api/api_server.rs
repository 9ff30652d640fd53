//! As much of an API server as reviews need. It answers each request with bytes of the test's choice.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(crate) struct ApiServer {
    port: u16,
    /// Path and body of what was asked.
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _tasks: JoinSet<()>,
}

pub(crate) enum Reply {
    /// An object, with its HTTP status.
    Object(u16, Value),
    /// A body of which the second half never comes.
    Cut(Value),
    /// Something that is no object.
    Garbage,
}

type Answer = dyn Fn(&str, &Value) -> Reply + Send + Sync;

impl ApiServer {
    pub(crate) async fn start(
        answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&asked), Arc::new(answer)));
        ApiServer { port, asked, _tasks: tasks }
    }

    /// One that fails each request so.
    pub(crate) async fn failing(code: u16) -> Self {
        Self::start(move |_, _| Reply::status(code)).await
    }

    pub(crate) fn client(&self) -> kube::Client {
        let mut config =
            kube::Config::new(format!("http://127.0.0.1:{}", self.port).parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Reply {
    pub(crate) fn status(code: u16) -> Self {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"});
        Reply::Object(code, status)
    }

    fn bytes(&self) -> Vec<u8> {
        let (code, body) = match self {
            Reply::Object(code, object) => (*code, object.to_string()),
            Reply::Cut(object) => (201, object.to_string()),
            Reply::Garbage => (201, "no object".to_owned()),
        };
        let head = format!(
            "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let kept = if matches!(self, Reply::Cut(_)) { body.len() / 2 } else { body.len() };
        [head.as_bytes(), body.as_bytes().get(..kept).unwrap()].concat()
    }
}

async fn serve(
    listener: TcpListener,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    answer: Arc<Answer>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
        connections.spawn(async move {
            let mut stream = BufReader::new(stream);
            let Some((path, body)) = request(&mut stream).await else { return };
            let reply = answer(&path, &body);
            asked.lock().unwrap().push((path, body));
            let _ = stream.write_all(&reply.bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}

/// `None`: the client only opened a connection.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let path = head.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    Some((path, serde_json::from_slice(&body).unwrap()))
}
