use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context, Result};

/// What the machine says of itself, for settings that are not given.
pub(crate) struct Host {
    pub(crate) name: String,
    /// Addresses that others can reach it at, the best one first; never empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where this program lies.
    pub(crate) programs: PathBuf,
    /// How many CPUs it may use.
    pub(crate) cpus: u64,
    /// How much memory there is, in bytes.
    pub(crate) memory: u64,
    /// Whether this program may make others another user's.
    pub(crate) is_root: bool,
}

impl Host {
    pub(crate) fn look() -> Result<Self> {
        let program = std::env::current_exe().context("find this program's own file")?;
        Ok(Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            addresses: addresses(),
            programs: program.parent().map(PathBuf::from).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory: memory(),
            is_root: rules(),
        })
    }
}

/// Whether this is root indeed: of the whole machine and not of a user namespace, with what changing users and mounting take.
fn rules() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SYS_ADMIN;
    let able = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    let users = read("/proc/self/uid_map");
    let all = users.split_whitespace().eq(["0", "0", "4294967295"]);
    rustix::process::geteuid().is_root() && able && all
}

fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

/// The addresses that the default routes lead out by, else what there is.
fn addresses() -> Vec<IpAddr> {
    let routed = [towards("192.0.2.1".parse().ok()), towards("2001:db8::1".parse().ok())];
    let mut found: Vec<_> = routed.into_iter().flatten().collect();
    if found.is_empty() {
        found = local(&read("/proc/net/fib_trie"), &read("/proc/net/if_inet6"));
    }
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found
}

/// The address that packets to another machine would bear. Connecting a datagram socket sends none. The other machine
/// is one that cannot be, of the networks that are reserved for documentation (RFC 5737, RFC 3849).
fn towards(other: Option<IpAddr>) -> Option<IpAddr> {
    let other = other?;
    let any: IpAddr =
        if other.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(other, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Addresses of this machine but loopback and link-local ones.
fn local(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let usable = |ip: &Ipv4Addr| !ip.is_loopback() && !ip.is_link_local();
    for ip in hosts(fib_trie).filter(usable) {
        if !found.contains(&ip.into()) {
            found.push(ip.into());
        }
    }
    let six = if_inet6
        .lines()
        .filter_map(|line| u128::from_str_radix(line.get(..32)?, 16).ok())
        .map(Ipv6Addr::from);
    found.extend(
        six.filter(|ip| !ip.is_loopback() && !ip.is_unicast_link_local()).map(IpAddr::from),
    );
    found
}

/// In fib_trie a local address is a line `|-- 10.0.0.1` that is followed by `/32 host LOCAL`.
fn hosts(fib_trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let lines = fib_trie.lines().map(str::trim);
    lines.clone().zip(lines.skip(1)).filter_map(|(leaf, kind)| {
        let address = leaf.strip_prefix("|-- ").filter(|_| kind.starts_with("/32 host LOCAL"))?;
        address.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_an_address() {
        let host = Host::look().unwrap();
        assert!(!host.name.is_empty());
        assert!(!host.addresses.is_empty());
    }

    #[test]
    fn local_addresses_are_found_without_a_route() {
        let fib_trie = "Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.0
        /24 link UNICAST
     |-- 10.0.0.5
        /32 host LOCAL
     |-- 10.0.0.255
        /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 10.0.0.5
        /32 host LOCAL
";
        let if_inet6 = "00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000000000000000000a 02 40 20 80     eth0
fd000000000000000000000000000005 02 40 00 80     eth0
";
        let expected: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(local(fib_trie, if_inet6), expected);
    }
}
