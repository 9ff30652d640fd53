//! Manifests: files in which people write down what should run, read without an API server.
//!
//! An API server checks what it is given and fills in defaults before any node sees it. Here is what a node must do itself
//! where there is none between: [`read`] takes the documents of a file apart, strictly; [`check`] refuses what makes no
//! sense, with the field; [`fill`] sets the defaults. Every error names file, document and field.
//!
//! [`static_pod`] makes a static pod of a Pod, and [`Folder`] and [`Url`] are the places that static pods come from: each
//! is one task that tells the whole [`Set`] of pods that it has found whenever that has changed. What cannot be read now
//! never ends what runs: a set names the manifests that its reader could make nothing of.
//!
//! Read `document.rs`, `check.rs`, `defaults.rs`, `fixed.rs`, then `folder.rs` and `url.rs`.

mod changes;
mod check;
mod defaults;
mod document;
mod error;
mod fixed;
mod folder;
mod refers;
mod set;
mod url;

pub use check::check;
pub use defaults::fill;
pub use document::{Document, Object, read};
pub use error::Error;
pub use fixed::{MANIFEST, Origin, static_pod};
pub use folder::Folder;
pub use set::Set;
pub use url::{BadUrl, Url};
