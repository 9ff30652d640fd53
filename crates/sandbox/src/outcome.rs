//! How a guest ended, in the words of `nodule-sandbox-proto`.

use std::fmt::Write;

use nodule_sandbox_proto::{Cause, Exit};
use wasmtime::{Error, FrameInfo, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::memory::Memory;
use crate::process::now;

/// The guest's first function came to its end: it returned a code, left with one, or trapped.
pub(crate) fn ended(result: wasmtime::Result<u8>, memory: &Memory, started_at: i64) -> Exit {
    let error = match result {
        Ok(code) => return Exit::exited(code, started_at, now()),
        Err(error) => error,
    };
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Exit::exited(low_byte(*code), started_at, now());
    }
    match memory.refused() {
        Some(refused) => {
            let limit = memory
                .limit()
                .map_or_else(|| "no limit".to_owned(), |limit| format!("a limit of {limit} bytes"));
            let message =
                format!("{} bytes of memory wanted, {limit}\n{}", refused.wanted, trap(&error));
            Exit::new(Cause::OutOfMemory, &message, Some(started_at), now())
        }
        None => Exit::new(Cause::Trapped, &trap(&error), Some(started_at), now()),
    }
}

/// What a parent process sees of an exit code: its low byte (wait(2)).
fn low_byte(code: i32) -> u8 {
    code.to_le_bytes()[0]
}

/// What the guest did and where.
pub(crate) fn trap(error: &Error) -> String {
    let mut text = match error.downcast_ref() {
        Some(I32Exit(code)) => return format!("it exited with code {code}"),
        None => error.root_cause().to_string(),
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    for (number, frame) in frames.iter().enumerate() {
        _ = write!(text, "\n  {number}: {}", place(frame));
    }
    text
}

/// `module!function @ offset in the module`, in the words of Wasmtime's own command line.
fn place(frame: &FrameInfo) -> String {
    let module = frame.module().name().unwrap_or("<module>");
    let function = frame
        .func_name()
        .map_or_else(|| format!("function[{}]", frame.func_index()), ToOwned::to_owned);
    let offset = frame.module_offset().map_or_else(String::new, |offset| format!(" @ {offset:#x}"));
    format!("{module}!{function}{offset}")
}
