//! Outgoing requests.

use wasip2::http::outgoing_handler::{OutgoingRequest, handle};
use wasip2::http::types::{
    Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, Scheme,
};

/// `STATUS BODY`, or what went wrong. A body is sent in the pieces that are given.
pub fn ask(url: &str, pieces: &[&[u8]]) -> String {
    match response(url, pieces) {
        Ok(response) => format!("{} {}", response.status(), body(&response)),
        Err(error) => error,
    }
}

fn response(url: &str, pieces: &[&[u8]]) -> Result<IncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(&format!("/{path}"))).map_err(|()| "path")?;
    if pieces.is_empty() {
        return wait(&handle(request, None).map_err(|error| format!("{error:?}"))?);
    }
    request.set_method(&Method::Post).map_err(|()| "method")?;
    let sent = request.body().map_err(|()| "body")?;
    let future = handle(request, None).map_err(|error| format!("{error:?}"))?;
    send(sent, pieces)?;
    wait(&future)
}

fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    future.subscribe().block();
    let answer = future.get().ok_or("not ready")?.map_err(|()| "taken")?;
    answer.map_err(|error| format!("{error:?}"))
}

fn send(body: OutgoingBody, pieces: &[&[u8]]) -> Result<(), String> {
    let stream = body.write().map_err(|()| "stream")?;
    for piece in pieces {
        // What cannot be sent is told by the answer that does not come.
        _ = stream.blocking_write_and_flush(piece);
    }
    drop(stream);
    _ = OutgoingBody::finish(body, None);
    Ok(())
}

fn body(response: &IncomingResponse) -> String {
    let Ok(body) = response.consume() else { return String::new() };
    let Ok(stream) = body.stream() else { return String::new() };
    let mut all = Vec::new();
    while let Ok(piece) = stream.blocking_read(64 << 10) {
        all.extend(piece);
    }
    String::from_utf8_lossy(&all).into_owned()
}
