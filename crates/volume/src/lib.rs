//! The volumes of pods: folders of the host that become a guest's preopened directories.
//!
//! [`set_up`] makes what one volume needs and says where it lies; it may be called again at any time and finds what is
//! there. What a volume is made of ([`Source`]) has been read by the caller: this crate knows nothing of containers, images
//! or the API server.
//!
//! Read `setup.rs`, then `atomic.rs` (files that change all at once), `memory.rs` (what must not be on a disk), `owner.rs`
//! (whose files they are) and `beneath.rs` (paths that stay within a volume).
//!
//! What lies in a volume is a guest's work and so hostile: [`usage`] measures a folder and [`remove`] removes one, both by
//! descriptors, without recursion, never through a symbolic link and never into another mount.

mod atomic;
mod beneath;
mod entry;
mod memory;
mod owner;
mod remove;
mod setup;
mod usage;

pub use atomic::{Content, Files, WriteError, write};
pub use beneath::{BeneathError, look, make, read};
pub use memory::{Memory, MemoryError, unmount_below};
pub use owner::{Change, Group, OwnError, hand_over};
pub use remove::{RemoveError, remove};
pub use setup::{Error, Place, Site, Source, empty_dir_path, set_up};
pub use usage::{Usage, usage};
