//! Which start of the machine something is of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kernel's name for the time since the machine was started (random(4), `boot_id`): a UUID, new at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Boot(u128);

/// Why a text names no [`Boot`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is no UUID")]
pub struct NoBoot(String);

impl Boot {
    /// This boot; none where `/proc` does not say.
    pub fn this() -> Option<Self> {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
    }
}

impl FromStr for Boot {
    type Err = NoBoot;

    fn from_str(text: &str) -> Result<Self, NoBoot> {
        let digits = text.replace('-', "");
        let whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| whole);
        number.map(Self).ok_or_else(|| NoBoot(text.to_owned()))
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TryFrom<String> for Boot {
    type Error = NoBoot;

    fn try_from(text: String) -> Result<Self, NoBoot> {
        text.parse()
    }
}

impl From<Boot> for String {
    fn from(boot: Boot) -> Self {
        boot.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_read_with_and_without_hyphens() {
        let text = "0a1b2c3d-0000-4000-8000-00000000000f";
        let boot: Boot = text.parse().unwrap();
        assert_eq!(boot.to_string(), text.replace('-', ""));
        assert_eq!(boot.to_string().parse(), Ok(boot));
        for bad in ["", "1", &"g".repeat(32), &"+".repeat(32)] {
            assert_eq!(bad.parse::<Boot>(), Err(NoBoot(bad.to_owned())));
        }
    }
}
