//! The ways to break Wasm's rules.

use std::hint::black_box;

use crate::Failure;

/// None if there is no such trap.
pub fn trap(kind: &str) -> Option<Result<(), Failure>> {
    match kind {
        "unreachable" => core::arch::wasm32::unreachable(),
        "memory" => outside(),
        "stack" => println!("{}", deep(black_box(0))),
        "divide" => println!("{}", divide(black_box(1), black_box(0))),
        _ => return None,
    }
    Some(Err(format!("the trap {kind} did not happen")))
}

/// Reads the last bytes that a 32-bit address can name.
fn outside() {
    let address = black_box(usize::MAX - 7) as *const u32;
    // SAFETY: none. The read traps, which is the point.
    println!("{}", unsafe { address.read_unaligned() });
}

/// Each call works on the result of the next one, so that no compiler makes a loop of it.
#[inline(never)]
fn deep(depth: u64) -> u64 {
    if depth == u64::MAX { depth } else { deep(depth + 1).rotate_left(3) ^ depth }
}

/// The division itself: Rust's check, which would panic, is taken away.
#[inline(never)]
fn divide(number: u32, by: u32) -> u32 {
    // SAFETY: none. The caller breaks the promise, and the instruction traps, which is the point.
    unsafe { std::hint::assert_unchecked(by != 0) };
    number / by
}
