//! Guests that the tests run, in the text format.

/// Reads standard input to its end, then ends well.
pub(crate) const WAITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 32) "\30\00\00\00\08\00\00\00")
    (data (i32.const 80) "\00\02\00\00\08\00\00\00")
    (data (i32.const 512) "waiting\0a")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 68)))
        (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 72)))))"#;

/// Prints its last argument and a newline, and exits with `code`.
pub(crate) fn says(code: u8) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (local $last i32) (local $end i32)
            (drop (call $sizes (i32.const 0) (i32.const 4)))
            (drop (call $args (i32.const 64) (i32.const 1024)))
            (local.set $last (i32.load (i32.add (i32.const 64)
                (i32.mul (i32.const 4) (i32.sub (i32.load (i32.const 0)) (i32.const 1))))))
            (local.set $end (i32.sub (i32.add (i32.const 1024) (i32.load (i32.const 4))) (i32.const 1)))
            (i32.store8 (local.get $end) (i32.const 10))
            (i32.store (i32.const 8) (local.get $last))
            (i32.store (i32.const 12) (i32.add (i32.const 1) (i32.sub (local.get $end) (local.get $last))))
            (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
            (call $exit (i32.const {code}))))"#
    )
}
