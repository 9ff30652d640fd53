//! Container logs in the CRI format, which kubelets, log collectors and `crictl` agree on.
//!
//! A log is a file of records, one a line: `<RFC 3339 time> <stdout|stderr> <P|F> <text>`. `F` ends a line of
//! the container's output, `P` is a part of one that goes on in the next record of the same stream. When the
//! file is full it is renamed to `<name>.<time>` and a new one is begun; the oldest are removed.
//!
//! [`Writer`] is blocking and has no thread and no task: the container's process calls it for each piece of
//! output. It works on the descriptor of the log's folder alone, so that its process needs no file system ([`folder`]
//! opens one). Readers take that folder for hostile: they open regular files only, and read bounded pieces. [`tail`] gives the end of a log as text. [`read`] (feature `reader`) is a stream for `kubectl logs`:
//! it lives in the task that polls it, and ends when it is dropped.
//!
//! Read `record.rs` (the format), `writer.rs`, `output.rs` (the file and its rotation), `files.rs`, then `read.rs`,
//! `source.rs` (from one file to the next while following) and `printer.rs` (what the user sees).

mod error;
mod files;
mod output;
mod record;
mod tail;
mod writer;

#[cfg(feature = "reader")]
mod changes;
#[cfg(feature = "reader")]
mod printer;
#[cfg(feature = "reader")]
mod read;
#[cfg(feature = "reader")]
mod source;

pub use error::Error;
#[cfg(feature = "reader")]
pub use read::{Query, Streams, read};
pub use record::Stream;
pub use tail::tail;
pub use writer::{Rotation, Writer, folder};
