//! The one Wasmtime configuration on which compiled code and the process that runs it agree.
//!
//! Wasmtime refuses code that was compiled under other settings, so `nodule-compile` and `nodule-sandbox` both begin
//! with [`config`], or [`proxy_config`] for programs that serve HTTP. [`imports`] lists what a program may import, which
//! the one checks and the other provides.
//!
//! Nothing here brings Cranelift, which only `nodule-compile` has. Cargo unifies the features of what one command
//! builds, so each of the two programs is built by a command of its own.

pub mod imports;

use wasmtime::Config;

/// Address space of a 32-bit memory, all of it reserved: no bounds checks are compiled, growing never moves it. It
/// costs page tables only where the guest touches it.
const RESERVATION: u64 = 4 << 30;

/// What lies behind a memory, so that an access at a constant offset needs no check either.
const GUARD: u64 = 32 << 20;

/// How deep a guest may call, in bytes of native stack. Interpreters compiled to Wasm need more than Wasmtime's
/// default of half of this.
const WASM_STACK: usize = 1 << 20;

/// The stack that a guest and the host functions it calls share: [`WASM_STACK`] and as much again for the host. Pages
/// that are not touched cost nothing.
const ASYNC_STACK: usize = 2 << 20;

/// What a command, a module or a component, is compiled for and run with.
///
/// Calls may be concurrent, as WASI 0.3 has it; programs of 0.1 and 0.2 do not notice.
///
/// There is neither fuel nor an epoch: a guest has a process of its own, which the kernel schedules, limits and kills,
/// and the checks would cost loops up to half their speed.
pub fn config() -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(RESERVATION)
        .memory_guard_size(GUARD)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .generate_address_map(true)
        .concurrency_support(true);
    config
}

/// What a component that serves HTTP is compiled for and run with: [`config`] with a check of the epoch in every loop
/// and function, so that one request that does not end is ended while the others of its process go on. Its calls may be
/// concurrent, as WASI 0.3 has it.
pub fn proxy_config() -> Config {
    let mut config = config();
    config.epoch_interruption(true).concurrency_support(true);
    config
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;

    #[test]
    fn the_configurations_are_valid() {
        Engine::new(&config()).unwrap();
        Engine::new(&proxy_config()).unwrap();
    }
}
