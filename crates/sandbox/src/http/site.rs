//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use wasmtime::Error;
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{ExpirationError, InstantiationError, ProxyHandler};

use super::body::Paced;
use super::connection::Activity;
use super::gate::{Busy, Gate};
use super::instance::{Crowded, Maker};
use super::lease::Ticket;
use super::pace::{Limits, Pace};
use super::tell::{self, Tell};
use crate::outcome;

/// What is served, to all connections.
pub(super) struct Site {
    pub(super) handler: ProxyHandler<Maker>,
    pub(super) gate: Gate,
    pub(super) limits: Limits,
    pub(super) tell: Tell,
}

/// Why the host answers in the guest's place, and what.
struct Refusal {
    status: StatusCode,
    why: String,
}

impl Site {
    /// There is always an answer; one that the guest has not given says no more than its status, and the log says why.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        activity: &Arc<Activity>,
    ) -> Response<Paced<WasiBody>> {
        let pace = Arc::new(Pace::new(self.limits));
        let running = activity.begin(&pace);
        let told = tell::Request::new(request.method(), request.uri(), request.version());
        let response = match self.ask(request, &pace).await {
            Ok(response) => response,
            Err(Refusal { status, why }) => {
                self.tell.failed(&told, why);
                refuse(status)
            }
        };
        pace.touch();
        self.tell.answered(&told, response.status(), pace.elapsed());
        response.map(|body| Paced::new(body, pace, Some(running)))
    }

    async fn ask(
        &self,
        request: Request<Incoming>,
        pace: &Arc<Pace>,
    ) -> Result<Response<WasiBody>, Refusal> {
        check(&request)?;
        let pass = self.gate.pass(pace).await.map_err(Refusal::from)?;
        let ticket = Ticket { pace: Arc::clone(pace), pass };
        let request = request.map(|body| Paced::new(body, Arc::clone(pace), None).boxed_unsync());
        tokio::select! {
            response = self.handler.handle(ticket, request) => response.map_err(|error| refusal(&error, pace)),
            // The instance may be beyond answering; it is ended by its own account.
            () = pace.over() => Err(Refusal::late()),
        }
    }
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    fn late() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "no answer within the time for a request")
    }
}

impl From<Busy> for Refusal {
    fn from(busy: Busy) -> Self {
        let why = match busy {
            Busy::Full => "too many requests run and wait already",
            Busy::Late => "it was not its turn within the time for a request",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }
}

/// WASI gives the guest an authority, so that a request without any is none (RFC 9112, 3.2).
fn check(request: &Request<Incoming>) -> Result<(), Refusal> {
    let host = request.headers().get(HOST).map(HeaderValue::to_str);
    if request.uri().authority().is_some() || matches!(host, Some(Ok(_))) {
        Ok(())
    } else {
        Err(Refusal::new(StatusCode::BAD_REQUEST, "the request names no host"))
    }
}

/// What became of a request that an instance took, or should have.
fn refusal(error: &Error, pace: &Pace) -> Refusal {
    if error.is::<ExpirationError>() || pace.is_over() {
        return Refusal::late();
    }
    if let Some(InstantiationError { error, .. }) =
        error.downcast_ref::<InstantiationError<Ticket>>()
    {
        let status = if error.is::<Crowded>() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        return Refusal::new(status, format!("no instance: {}", outcome::trap(error)));
    }
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, outcome::trap(error))
}

fn refuse(status: StatusCode) -> Response<WasiBody> {
    let reason = status.canonical_reason().unwrap_or_default();
    let text = Full::new(Bytes::from(format!("{reason}\n")));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
