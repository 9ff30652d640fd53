//! What Cranelift can compile for RISC-V, on any machine. Without the vector extension it panics on copies that it writes
//! out with vectors (Wasmtime 46 to 50), whether or not Wasm's own vectors are allowed: so such a crash names the CPU.
//! When the second test fails, Wasmtime is mended and these words can go.

#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that fails should panic; a CPU's extension is said, and no code is run"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::{Config, Engine};

fn engine(change: impl Fn(&mut Config)) -> Engine {
    let mut config = nodule_engine::config();
    config.target("riscv64gc-unknown-linux-gnu").unwrap();
    change(&mut config);
    Engine::new(&config).unwrap()
}

/// Whether a program compiles that copies so many bytes.
fn compiles(engine: &Engine, length: u32) -> bool {
    let copy = format!("(memory.copy (i32.const 0) (i32.const 4) (i32.const {length}))");
    let wasm = wat::parse_str(format!(r#"(module (memory 1) (func (export "_start") {copy}))"#));
    let compiled = catch_unwind(AssertUnwindSafe(|| engine.precompile_module(&wasm.unwrap())));
    compiled.is_ok_and(|result| result.is_ok())
}

#[test]
fn with_vectors_every_copy_compiles() {
    // SAFETY: the code is never run.
    let engine = engine(|config| unsafe {
        config.cranelift_flag_enable("has_v");
    });
    assert!([1, 15, 16, 64, 128, 129].into_iter().all(|length| compiles(&engine, length)));
}

#[test]
fn without_vectors_copies_of_16_to_128_bytes_do_not_compile() {
    let scalar = engine(|config| {
        config.wasm_relaxed_simd(false).wasm_simd(false);
    });
    for engine in [engine(|_| ()), scalar] {
        assert!([1, 15, 129].into_iter().all(|length| compiles(&engine, length)));
        assert!(![16, 64, 128].into_iter().any(|length| compiles(&engine, length)));
    }
}
