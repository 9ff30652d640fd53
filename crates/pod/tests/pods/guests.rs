//! Guests that the tests of pods run, in the text format.

/// Reads standard input to its end.
pub(crate) const WAITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 32) "\30\00\00\00\08\00\00\00")
    (func (export "_start") (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 72)))))"#;

/// Never ends, whatever it is told.
pub(crate) const DEAF: &str = r#"(module (func (export "_start") (loop $on (br $on))))"#;

/// Ends at once with `code`.
pub(crate) fn exits(code: u8) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const {code}))))"#
    )
}

/// Opens the file `name` in its first mount as `flags` say (WASI's `oflags`), writes `words` to it, and exits with `code`;
/// where it cannot open it, it waits for the end of standard input.
pub(crate) fn writes(name: &str, flags: u8, words: &str, code: u8) -> String {
    let (length, size) = (name.len(), words.len());
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 32) "\30\00\00\00\08\00\00\00")
        (data (i32.const 256) "{name}")
        (data (i32.const 512) "{words}")
        (func (export "_start")
            (if (call $open (i32.const 3) (i32.const 0) (i32.const 256) (i32.const {length}) (i32.const {flags})
                    (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 64))
                (then (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 72))) (return)))
            (i32.store (i32.const 80) (i32.const 512))
            (i32.store (i32.const 84) (i32.const {size}))
            (if (call $write (i32.load (i32.const 64)) (i32.const 80) (i32.const 1) (i32.const 68)) (then unreachable))
            (call $exit (i32.const {code}))))"#
    )
}

/// Says `words` on standard error, and then comes to a trap.
pub(crate) fn traps(words: &str) -> String {
    let size = words.len();
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 512) "{words}\0a")
        (func (export "_start")
            (i32.store (i32.const 80) (i32.const 512))
            (i32.store (i32.const 84) (i32.add (i32.const {size}) (i32.const 1)))
            (drop (call $write (i32.const 2) (i32.const 80) (i32.const 1) (i32.const 68)))
            unreachable))"#
    )
}
