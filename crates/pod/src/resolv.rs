//! The node's own resolv.conf(5) and hosts(5).

use std::net::{IpAddr, SocketAddr};

use nodule_sandbox_proto::{Host, Names};

/// Where name servers listen.
const PORT: u16 = 53;

/// Lines of a hosts file that are taken. Each is memory in every container.
const HOSTS: usize = 500;

/// What resolv.conf(5) says: options beyond what is known have no effect, as in the C library.
pub(crate) fn resolv(text: &str) -> Names {
    let mut names = Names::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => names.servers.extend(words.next().and_then(server)),
            // The last of them counts.
            Some("search" | "domain") => names.search = words.map(Into::into).collect(),
            Some("options") => words.for_each(|word| {
                let (name, value) = word.split_once(':').unwrap_or((word, ""));
                option(&mut names, name, value);
            }),
            Some(_) | None => {}
        }
    }
    names
}

/// An address, with a numeric zone if it needs one.
pub(crate) fn server(text: &str) -> Option<SocketAddr> {
    let plain = text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
    plain.or_else(|| format!("[{text}]:{PORT}").parse().ok())
}

/// Sets one option, within the bounds of resolv.conf(5).
pub(crate) fn option(names: &mut Names, name: &str, value: &str) {
    let number = |most: u32| u8::try_from(value.parse::<u32>().ok()?.min(most)).ok();
    match name {
        "ndots" => names.ndots = number(15).unwrap_or(names.ndots),
        "timeout" => names.timeout = number(30).unwrap_or(names.timeout).max(1),
        "attempts" => names.attempts = number(5).unwrap_or(names.attempts).max(1),
        "rotate" => names.rotate = true,
        _ => {}
    }
}

/// What hosts(5) says.
pub(crate) fn hosts(text: &str) -> Vec<Host> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let names: Vec<String> = words.map(Into::into).collect();
        (!names.is_empty()).then_some(Host { address, names })
    };
    text.lines().filter_map(line).take(HOSTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read_as_the_manual_has_it() {
        let names = resolv(
            "# comment\n; another\nnameserver 192.0.2.1 # here\nnameserver fe80::1%2\nnameserver nonsense\n\
             domain example.org\nsearch a.example b.example\n\
             options ndots:99 timeout:2 edns0\noptions attempts:0 rotate trust-ad\nsortlist 1.2.3.4\n",
        );
        let expected = Names {
            hosts: Vec::new(),
            servers: vec!["192.0.2.1:53".parse().unwrap(), "[fe80::1%2]:53".parse().unwrap()],
            search: vec!["a.example".into(), "b.example".into()],
            ndots: 15,
            timeout: 2,
            attempts: 1,
            rotate: true,
        };
        assert_eq!(names, expected);
        assert_eq!(resolv(""), Names::default());
        assert_eq!(resolv("options ndots: timeout:x\n"), Names::default());
    }

    #[test]
    fn a_hosts_file_is_read_as_the_manual_has_it() {
        let found =
            hosts("127.0.0.1\tlocalhost lo # here\n#::1 no\n\n::1 localhost\nbad x\n10.0.0.1\n");
        let host = |address: &str, names: &[&str]| Host {
            address: address.parse().unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(found, [host("127.0.0.1", &["localhost", "lo"]), host("::1", &["localhost"])]);
    }
}
