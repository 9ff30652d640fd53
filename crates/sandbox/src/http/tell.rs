//! What the container's log is told, on its standard error.

use std::fmt::Display;
use std::time::Duration;

use http::{Method, StatusCode, Uri, Version};
use nodule_logs::Stream;
use wasmtime::Error;

use crate::outcome;
use crate::output::Log;

/// The longest target of a request that is told, in bytes: who asks decides on it.
const TARGET: usize = 256;

/// Writes lines of the host's own.
#[derive(Clone)]
pub(super) struct Tell {
    log: Log,
    access: bool,
}

/// What is said of a request.
pub(super) struct Request {
    method: Method,
    target: String,
    version: Version,
}

impl Request {
    pub(super) fn new(method: &Method, uri: &Uri, version: Version) -> Self {
        let target = uri.path_and_query().map_or("*", |target| target.as_str());
        let target = target.get(..target.floor_char_boundary(TARGET)).unwrap_or_default();
        Self { method: method.clone(), target: target.to_owned(), version }
    }
}

impl Tell {
    pub(super) fn new(log: Log, access: bool) -> Self {
        Self { log, access }
    }

    /// A request that was not answered by the guest, and why.
    pub(super) fn failed(&self, request: &Request, why: impl Display) {
        self.line(format_args!("{} {}: {why}", request.method, request.target));
    }

    /// An instance that ended other than by itself.
    pub(super) fn broken(&self, error: &Error) {
        self.line(format_args!("an instance was ended: {}", outcome::trap(error)));
    }

    /// A request whose answer has begun, if that is asked for.
    pub(super) fn answered(&self, request: &Request, status: StatusCode, after: Duration) {
        if self.access {
            let Request { method, target, version } = request;
            let (status, after) = (status.as_u16(), after.as_millis());
            self.line(format_args!("{method} {target} {version:?} {status} {after} ms"));
        }
    }

    fn line(&self, text: impl Display) {
        self.log.write(Stream::Stderr, format!("nodule: {text}\n").as_bytes());
    }
}
