//! Programs smaller than the probe, for what it cannot do.

use anyhow::Result;
use nodule_e2e::push::{Image, Packaging};

/// Exits with 3 the first and the second time that it is run in a folder, and then with 0. The folder is its only
/// preopened one.
pub(crate) const THIRD_TIME: &str = r#"
(module
  (import "wasi_snapshot_preview1" "path_create_directory"
    (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "12")
  (func (export "_start")
    ;; Makes the folder "1", else the folder "2"; which of them was there already is how often it ran.
    (if (i32.eqz (call $mkdir (i32.const 3) (i32.const 0) (i32.const 1))) (then (call $exit (i32.const 3))))
    (if (i32.eqz (call $mkdir (i32.const 3) (i32.const 1) (i32.const 1))) (then (call $exit (i32.const 3))))
    (call $exit (i32.const 0))))
"#;

/// Exits with 7 once there is a file "go" in its only preopened folder.
pub(crate) const UNTIL_GO: &str = r#"
(module
  (import "wasi_snapshot_preview1" "path_filestat_get"
    (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "go")
  (func (export "_start")
    ;; A subscription at 64: the monotonic clock (id 1, at 80), 20 ms from now (at 88).
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 20000000))
    (loop $again
      (if (i32.eqz (call $stat (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 256)))
        (then (call $exit (i32.const 7))))
      (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
      (br $again))))
"#;

/// A program that nobody else pushes: a test may break its blobs.
pub(crate) const ALONE: &str = r#"(module (func (export "_start")) (memory (export "memory") 1))"#;

/// The program as a CNCF artifact.
pub(crate) fn artifact(text: &str) -> Result<Image> {
    Ok(Image::of_program(Packaging::Cncf, wat::parse_str(text)?))
}
