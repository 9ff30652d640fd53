//! One request to another server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use nodule_logs::Stream;
use rustls_pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::answer::Answer;
use super::dial::dial;
use super::pool::{Connection, Pool, Server};
use super::tls::Tls;
use crate::net::Network;
use crate::output::Log;

/// The most connections of one container at once, those that wait among them.
const CONNECTIONS: usize = 256;

/// The longest head of an answer in bytes, with all of its fields.
const HEAD: usize = 64 << 10;
const FIELDS: usize = 128;

/// Until there is a connection, TLS included, where the guest sets no time.
const CONNECT: Duration = Duration::from_secs(30);
/// Until the answer begins, and between its pieces, where the guest sets no time: what Wasmtime's own server has.
const ANSWER: Duration = Duration::from_secs(600);

/// Sends the requests of all instances.
pub(crate) struct Client {
    network: Arc<Network>,
    tls: Tls,
    pool: Arc<Pool>,
    connections: Arc<Semaphore>,
    /// What drives the connections, and ends those that wait too long.
    tasks: Mutex<JoinSet<()>>,
    log: Log,
}

impl Client {
    /// Believes `roots` beside the usual ones. What the guest's error codes cannot say is said in `log`.
    pub(crate) fn new(
        roots: Vec<CertificateDer<'static>>,
        network: Arc<Network>,
        log: Log,
    ) -> Self {
        Self {
            network,
            tls: Tls::new(roots),
            pool: Arc::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks: Mutex::default(),
            log,
        }
    }

    /// The answer, whose body is still to come.
    pub(super) async fn send(
        self: Arc<Self>,
        request: Request<WasiBody>,
        options: &RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        let server = server(request.uri())?;
        let mut request = bare(request)?;
        let first = options.first_byte_timeout.unwrap_or(ANSWER);
        loop {
            let (mut connection, used) = match self.pool.take(&server) {
                Some(connection) => (connection, true),
                None => (self.connect(&server, options).await?, false),
            };
            let spare = used.then(|| again(&request)).flatten();
            let sent = timeout(first, connection.try_send_request(request)).await;
            match sent.map_err(|_| Error::ConnectionReadTimeout)? {
                Ok(response) => return Ok(self.answer(response, options, server, connection)),
                // The server has ended it meanwhile: what it has not seen, or may see twice, is sent anew.
                Err(mut failed) => match failed.take_message().filter(|_| used).or(spare) {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(failed.error())),
                },
            }
        }
    }

    fn answer(
        self: Arc<Self>,
        response: Response<Incoming>,
        options: &RequestOptions,
        server: Server,
        connection: Connection,
    ) -> Response<WasiBody> {
        let between = options.between_bytes_timeout.unwrap_or(ANSWER);
        response.map(|body| Answer::new(body, between, self, server, connection).boxed_unsync())
    }

    async fn connect(
        &self,
        server: &Server,
        options: &RequestOptions,
    ) -> Result<Connection, Error> {
        let permit = Arc::clone(&self.connections).try_acquire_owned();
        let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
        let made = timeout(options.connect_timeout.unwrap_or(CONNECT), self.reach(server, permit));
        made.await.map_err(|_| Error::ConnectionTimeout)?
    }

    async fn reach(
        &self,
        server: &Server,
        permit: OwnedSemaphorePermit,
    ) -> Result<Connection, Error> {
        let stream = dial(&self.network, &server.host, server.port).await?;
        if server.tls {
            let wrapped = self.tls.wrap(&server.host, stream).await.map_err(|problem| {
                let Server { host, port, .. } = server;
                let line = format!("nodule: https://{host}:{port}: {}\n", problem.why);
                self.log.write(Stream::Stderr, line.as_bytes());
                problem.error
            });
            self.begin(TokioIo::new(wrapped?), permit).await
        } else {
            self.begin(TokioIo::new(stream), permit).await
        }
    }

    async fn begin<T>(&self, io: T, permit: OwnedSemaphorePermit) -> Result<Connection, Error>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD).max_headers(FIELDS);
        let (sender, connection) = builder.handshake(io).await.map_err(|error| broken(&error))?;
        // Its errors are told to whoever waits for an answer on it.
        self.spawn(async move {
            _ = connection.await;
            drop(permit);
        });
        Ok(sender)
    }

    /// Keeps a connection whose answer has been read.
    pub(super) fn keep(&self, server: Server, connection: Connection) {
        if self.pool.keep(server, connection) {
            self.spawn(Arc::clone(&self.pool).sweep());
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Where a request goes.
fn server(uri: &Uri) -> Result<Server, Error> {
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    // A user in it would be sent on as a part of the server's name.
    if authority.as_str().contains('@') {
        return Err(Error::HttpRequestUriInvalid);
    }
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Server { tls, host: host.to_ascii_lowercase(), port })
}

/// The request as it goes over the line: with nothing but a path (RFC 9112, 3.2.1).
fn bare(mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

/// The same request, if sending it twice is sending it once (RFC 9110, 9.2.2) and there is nothing to it but a head.
fn again(request: &Request<WasiBody>) -> Option<Request<WasiBody>> {
    let may = request.method().is_idempotent() && request.body().is_end_stream();
    may.then(|| {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut same = Request::new(body);
        same.method_mut().clone_from(request.method());
        same.uri_mut().clone_from(request.uri());
        same.headers_mut().clone_from(request.headers());
        same
    })
}

/// What went wrong on a connection, in WASI's words.
pub(super) fn broken(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() || error.is_parse_status() {
        Error::HttpProtocolError
    } else if error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else {
        Error::ConnectionTerminated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_scheme_host_and_port() {
        let of = |uri: &str| server(&uri.parse().unwrap()).unwrap();
        let named = |tls, host: &str, port| Server { tls, host: host.into(), port };
        assert_eq!(of("http://Example.com/a"), named(false, "example.com", 80));
        assert_eq!(of("https://example.com"), named(true, "example.com", 443));
        assert_eq!(of("https://[::1]:8443/"), named(true, "::1", 8443));
        assert!(server(&"http://me@example.com/".parse().unwrap()).is_err());
    }
}
