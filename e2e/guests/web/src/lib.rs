//! An HTTP program of WASI 0.2 that does what a test's path tells it.
//!
//! | path | what it does |
//! |---|---|
//! | `/hello` | says hello |
//! | `/count` | how many requests this instance has had |
//! | `/echo` | sends the body back while it comes |
//! | `/big?N` | N KiB |
//! | `/late?N` | begins its answer, and ends it N milliseconds later |
//! | `/head` | the request's headers |
//! | `/spin`, `/trap`, `/exit`, `/nothing` | never ends, traps, exits, gives no answer |
//! | `/begin-trap`, `/begin-spin` | the same, after the beginning of an answer |
//! | `/alloc?N` | takes N MiB and touches them |
//! | `/say?TEXT` | writes a line to standard error |
//! | `/get?URL` | asks that server, and gives its answer or the error |
//! | `/gets?URL` | the same, with a body of two pieces |

mod ask;

use std::cell::Cell;

use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Web;

wasip2::http::proxy::export!(Web);

impl wasip2::exports::http::incoming_handler::Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/hello" => text(out, 200, "hello"),
            "/count" => text(out, 200, &count().to_string()),
            "/echo" => echo(&request, out),
            "/big" => begin(out, 200).send_all(std::iter::repeat_n([b'x'; 1024], number(query))),
            "/late" => late(out, number(query)),
            "/head" => text(out, 200, &head(&request)),
            "/spin" => spin(),
            "/trap" => trap(),
            "/exit" => std::process::exit(3),
            "/nothing" => {}
            "/begin-trap" => {
                let answer = begin(out, 200);
                answer.send(b"begun");
                trap()
            }
            "/begin-spin" => {
                let answer = begin(out, 200);
                answer.send(b"begun");
                spin()
            }
            "/alloc" => text(out, 200, &alloc(number(query))),
            "/say" => {
                eprintln!("{query}");
                text(out, 200, "said");
            }
            "/get" => text(out, 200, &ask::ask(query, &[])),
            "/gets" => text(out, 200, &ask::ask(query, &[b"one,", b"two"])),
            _ => text(out, 404, "no such path"),
        }
    }
}

thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });

fn count() -> u32 {
    COUNT.set(COUNT.get() + 1);
    COUNT.get()
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_default()
}

fn spin() -> ! {
    let mut turn = 0_u64;
    loop {
        turn = std::hint::black_box(turn.wrapping_add(1));
    }
}

fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

fn alloc(mib: usize) -> String {
    let mut memory = Vec::new();
    for _ in 0..mib {
        memory.push(vec![1_u8; 1 << 20]);
    }
    format!("{} MiB", std::hint::black_box(memory).len())
}

fn head(request: &IncomingRequest) -> String {
    let mut lines: Vec<_> = request
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value)))
        .collect();
    lines.sort();
    format!("{:?}\n{}", request.authority(), lines.join("\n"))
}

fn late(out: ResponseOutparam, milliseconds: usize) {
    let answer = begin(out, 200);
    answer.send(b"begun ");
    wasip2::clocks::monotonic_clock::subscribe_duration(milliseconds as u64 * 1_000_000).block();
    answer.send(b"ended");
    answer.end();
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("a body is taken once");
    let stream = body.stream().expect("its stream too");
    let answer = begin(out, 200);
    while let Some(piece) = next(&stream) {
        answer.send(&piece);
    }
    answer.end();
}

/// The next piece of a body; none at its end.
fn next(stream: &InputStream) -> Option<Vec<u8>> {
    match stream.blocking_read(16 << 10) {
        Ok(piece) => Some(piece),
        Err(StreamError::Closed) => None,
        Err(error) => panic!("the body broke off: {error:?}"),
    }
}

fn text(out: ResponseOutparam, status: u16, text: &str) {
    let answer = begin(out, status);
    answer.send(text.as_bytes());
    answer.end();
}

/// An answer that has begun.
struct Answer {
    stream: OutputStream,
    body: OutgoingBody,
}

fn begin(out: ResponseOutparam, status: u16) -> Answer {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("a body is taken once");
    ResponseOutparam::set(out, Ok(response));
    Answer { stream: body.write().expect("its stream too"), body }
}

impl Answer {
    fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(4096));
            self.stream.blocking_write_and_flush(now).expect("somebody listens");
            bytes = later;
        }
    }

    fn send_all(self, pieces: impl Iterator<Item = [u8; 1024]>) {
        pieces.for_each(|piece| self.send(&piece));
        self.end();
    }

    fn end(self) {
        drop(self.stream);
        OutgoingBody::finish(self.body, None).expect("the body ends");
    }
}
