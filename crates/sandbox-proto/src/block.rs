//! A block of addresses and, of each, some ports.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Addresses that begin alike, with all their ports or some: `10.0.0.0/8`, `fd00::/8:80`, `127.0.0.0/8:10248-10259`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Block {
    address: IpAddr,
    prefix: u8,
    ports: Option<(u16, u16)>,
}

/// Why a text is no [`Block`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "\"{0}\" is no block of addresses: write ADDRESS/PREFIX, with :PORT or :FIRST-LAST after it if not all ports are meant, such as 169.254.169.254/32 or fd00::/8:80-90"
)]
pub struct NoBlock(String);

impl Block {
    /// All ports of the addresses whose first `prefix` bits are those of `address`; none if there are not so many bits. An
    /// IPv4 address mapped into IPv6 is none: write the IPv4 address.
    fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let fits = prefix <= width(address) && address.to_canonical() == address;
        fits.then_some(Self { address, prefix, ports: None })
    }

    /// One port of one address.
    pub fn one(address: SocketAddr) -> Self {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        Self { address: ip, prefix: width(ip), ports: Some((port, port)) }
    }

    /// Whether it holds this port of this address, which may be an IPv4 address mapped into IPv6.
    pub fn holds(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let within = match (self.address, ip) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                let rest = u32::from(width(ip) - self.prefix);
                (bits(self.address) ^ bits(ip)).checked_shr(rest).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        };
        within && self.ports.is_none_or(|(first, last)| (first..=last).contains(&address.port()))
    }

    /// The ports that it is about; none are all.
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        self.ports.map(|(first, last)| first..=last)
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, rest) = text.split_once('/')?;
        let (prefix, ports) =
            rest.split_once(':').map_or((rest, None), |(prefix, ports)| (prefix, Some(ports)));
        let mut block = Self::new(address.parse().ok()?, number(prefix)?)?;
        if let Some(ports) = ports {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            block.ports =
                Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last);
            block.ports.as_ref()?;
        }
        Some(block)
    }
}

/// Digits and nothing else: the standard library takes a sign too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl FromStr for Block {
    type Err = NoBlock;

    fn from_str(text: &str) -> Result<Self, NoBlock> {
        Self::parse(text).ok_or_else(|| NoBlock(text.to_owned()))
    }
}

impl TryFrom<String> for Block {
    type Error = NoBlock;

    fn try_from(text: String) -> Result<Self, NoBlock> {
        text.parse()
    }
}

impl From<Block> for String {
    fn from(block: Block) -> Self {
        block.to_string()
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_it_is_written_as() {
        for text in
            ["0.0.0.0/0", "10.0.0.0/8", "::1/128:53", "fd00::/8:80-90", "169.254.169.254/32"]
        {
            assert_eq!(text.parse::<Block>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/8:",
            "10.0.0.0/8:9-8",
            "1.1.1.1/+8",
            "10.0.0.0/8:1-2-3",
            "10.0.0.0/8:65536",
            "name/8",
            "::ffff:10.0.0.0/104",
        ] {
            let error = text.parse::<Block>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{text}\" is no block")), "{error}");
        }
    }

    #[test]
    fn a_block_holds_its_addresses_and_ports() {
        for (block, address, held) in [
            ("10.0.0.0/8", "10.255.0.1:1", true),
            ("10.0.0.0/8", "11.0.0.0:1", false),
            ("10.1.2.3/8", "10.0.0.0:1", true),
            ("10.0.0.0/8", "[::ffff:10.1.1.1]:1", true),
            ("0.0.0.0/0", "[::ffff:10.1.1.1]:1", true),
            ("0.0.0.0/0", "[2001:db8::1]:1", false),
            ("::/0", "[2001:db8::1]:1", true),
            ("::/0", "1.2.3.4:1", false),
            ("::/0", "[::ffff:1.2.3.4]:1", false),
            ("fd00::/8:80-90", "[fdff::1]:80", true),
            ("fd00::/8:80-90", "[fdff::1]:90", true),
            ("fd00::/8:80-90", "[fdff::1]:91", false),
            ("fd00::/8:80-90", "[fe00::1]:80", false),
            ("127.0.0.1/32:53", "127.0.0.1:53", true),
            ("127.0.0.1/32:53", "127.0.0.2:53", false),
        ] {
            let holds = block.parse::<Block>().unwrap().holds(address.parse().unwrap());
            assert_eq!(holds, held, "{block} {address}");
        }
        let address = "[::ffff:127.0.0.1]:10248".parse().unwrap();
        assert_eq!(Block::one(address).to_string(), "127.0.0.1/32:10248");
    }
}
