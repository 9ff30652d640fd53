//! An HTTP program of WASI 0.3 that does what a test's path tells it: `/hello`, `/count`, `/echo`, `/spin`, `/trap`,
//! and `/get?URL`, which asks that server.

use std::cell::Cell;

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Web;

wasip3::http::service::export!(Web);

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/hello" => Ok(text("hello")),
            "/count" => Ok(text(&count().to_string())),
            "/echo" => Ok(echo(request)),
            "/spin" => spin(),
            "/trap" => core::arch::wasm32::unreachable(),
            "/get" => get(query).await,
            _ => Err(ErrorCode::HttpRequestUriInvalid),
        }
    }
}

thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });

fn count() -> u32 {
    COUNT.set(COUNT.get() + 1);
    COUNT.get()
}

fn spin() -> ! {
    let mut turn = 0_u64;
    loop {
        turn = std::hint::black_box(turn.wrapping_add(1));
    }
}

fn text(text: &str) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (trailers, end) = wit_future::new(|| Ok(None));
    drop(trailers);
    let (response, _sent) = Response::new(Fields::new(), Some(reader), end);
    let bytes = text.as_bytes().to_vec();
    wit_bindgen::spawn_local(async move {
        _ = writer.write_all(bytes).await;
    });
    response
}

fn echo(request: Request) -> Response {
    let (done, end) = wit_future::new(|| Ok(()));
    drop(done);
    let (body, trailers) = Request::consume_body(request, end);
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    response
}

/// Passes the other server's answer on.
async fn get(url: &str) -> Result<Response, ErrorCode> {
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (trailers, end) = wit_future::new(|| Ok(None));
    drop(trailers);
    let (request, _sent) = Request::new(Fields::new(), None, end, None);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    _ = request.set_scheme(Some(&scheme));
    _ = request.set_authority(Some(authority));
    _ = request.set_path_with_query(Some(&format!("/{path}")));
    client::send(request).await
}
