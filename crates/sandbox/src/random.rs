//! The guest's random numbers.
//!
//! They are set here for every process, never left to what a library made earlier: a generator that existed before a
//! fork gives the same numbers on both sides.

use rand::rngs::{SmallRng, SysError, SysRng};
use rand::{SeedableRng, TryRng};
use wasmtime_wasi::WasiCtxBuilder;

/// Gives the guest the kernel's random numbers, and cheap ones that are seeded by the kernel where it asks for
/// insecure ones.
pub(crate) fn give(wasi: &mut WasiCtxBuilder) -> Result<(), SysError> {
    let mut seed = [0; size_of::<u128>()];
    SysRng.try_fill_bytes(&mut seed)?;
    wasi.secure_random(rand::rand_core::UnwrapErr(SysRng))
        .insecure_random(SmallRng::try_from_rng(&mut SysRng)?)
        .insecure_random_seed(u128::from_ne_bytes(seed));
    Ok(())
}
