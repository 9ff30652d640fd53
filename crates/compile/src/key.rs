//! The key of compiled code.

use std::hash::{Hash, Hasher};

use wasmtime::Engine;

/// What compiled code depends on beside its source, as 32 hex digits: Wasmtime's version and settings, the CPU's
/// architecture and the extensions of it that are used, and this release of nodule. One key for the `engines` of all
/// kinds of programs: when one of them changes, all code is compiled again.
///
/// It stays the same from one run to the next, so that it may name files. It is no check: Wasmtime looks at each file
/// that it loads itself.
pub(crate) fn key(engines: &[&Engine]) -> String {
    let mut hasher = Fnv::default();
    for engine in engines {
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    std::env::consts::ARCH.hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    format!("{:032x}", hasher.0)
}

/// FNV-1a of 128 bits (RFC 9923): the standard library's own hasher may differ from one release to the next.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        const PRIME: u128 = (1 << 88) + 0x13b;
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// The lower half; [`key`] takes all of it.
    fn finish(&self) -> u64 {
        (self.0 & u128::from(u64::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hasher = Fnv::default();
        hasher.write(b"a");
        assert_eq!(hasher.0, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    fn engine(config: &wasmtime::Config) -> Engine {
        Engine::new(config).unwrap()
    }

    #[test]
    fn the_key_is_the_same_for_every_engine_of_one_configuration() {
        let key = || super::key(&[&engine(&nodule_engine::config())]);
        assert_eq!(key().len(), 32);
        assert_eq!(key(), key());
    }

    #[test]
    fn another_configuration_has_another_key() {
        let (command, proxy) =
            (engine(&nodule_engine::config()), engine(&nodule_engine::proxy_config()));
        assert_ne!(key(&[&command]), key(&[&proxy]));
        assert_ne!(key(&[&command, &command]), key(&[&command, &proxy]));
    }
}
