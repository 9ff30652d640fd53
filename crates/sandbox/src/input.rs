//! The guest's standard input: at its end, or silent until the container is to stop.

use std::sync::{Arc, Mutex, PoisonError};

use nodule_sandbox_proto::Stdin;
use tokio::io::DuplexStream;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::AsyncStdinStream;

/// Both ends of a held standard input; neither where it is empty.
#[derive(Clone)]
pub(crate) struct Input {
    /// Nothing is ever written to it; dropped, it is the end of file.
    writer: Arc<Mutex<Option<DuplexStream>>>,
    /// The guest's end, until the guest has it.
    reader: Arc<Mutex<Option<DuplexStream>>>,
}

impl Input {
    /// As the agent asks.
    pub(crate) fn new(stdin: Stdin) -> Self {
        let (writer, reader) = match stdin {
            Stdin::Empty => (None, None),
            Stdin::Held => {
                let (writer, reader) = tokio::io::duplex(1);
                (Some(writer), Some(reader))
            }
        };
        Self { writer: Arc::new(Mutex::new(writer)), reader: Arc::new(Mutex::new(reader)) }
    }

    /// Gives it to the guest, whose standard input is empty unless one is set.
    pub(crate) fn give(&self, wasi: &mut WasiCtxBuilder) {
        if let Some(reader) = take(&self.reader) {
            wasi.stdin(AsyncStdinStream::new(reader));
        }
    }

    /// Ends it, from any thread.
    pub(crate) fn end(&self) {
        drop(take(&self.writer));
    }
}

fn take(end: &Mutex<Option<DuplexStream>>) -> Option<DuplexStream> {
    end.lock().unwrap_or_else(PoisonError::into_inner).take()
}
