//! Servers that guests ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A server that answers with what it was asked: `METHOD PATH BODY`.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// How it treats its connections.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// Keeps them.
    Keep,
    /// Ends each after an answer, without a word of it before.
    Drop,
}

impl Peer {
    pub(super) fn plain(manner: Manner) -> Self {
        Self::start(move |stream| answer(BufReader::new(stream), manner))
    }

    /// Over TLS, and the certificate of who vouches for it.
    pub(super) fn tls() -> (Self, String) {
        let (config, root) = certified();
        let peer = Self::start(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            answer(BufReader::new(StreamOwned::new(connection, stream)), Manner::Keep);
        });
        (peer, root)
    }

    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, serve) = (Arc::clone(&connections), Arc::new(serve));
        // It lives as long as the test program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, connections }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Answers until the client or its own manner ends it.
fn answer<T: Read + Write>(mut stream: BufReader<T>, manner: Manner) {
    while let Some(text) = request(&mut stream) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        if stream.get_mut().write_all((head + &text).as_bytes()).is_err() {
            return;
        }
        _ = stream.get_mut().flush();
        if matches!(manner, Manner::Drop) {
            return;
        }
    }
}

fn request<T: Read>(stream: &mut BufReader<T>) -> Option<String> {
    let mut line = || {
        let mut line = String::new();
        let read = stream.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut asked = first.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut chunked = false;
    loop {
        let field = line()?;
        chunked |= field.eq_ignore_ascii_case("transfer-encoding: chunked");
        if field.is_empty() {
            break;
        }
    }
    let mut body = String::new();
    let mut more = chunked;
    while more {
        let length = usize::from_str_radix(&line()?, 16).ok()?;
        let text = line()?;
        body += &text;
        more = length > 0;
    }
    if !body.is_empty() {
        asked = format!("{asked} {body}");
    }
    Some(asked)
}

fn certified() -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &root).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (Arc::new(config), root.pem())
}
