//! How a pod's HTTP program is served: pure.
//!
//! Where, its ports say: the first `containerPort`, or the one that is named `http`. All else the pod's annotations
//! `http.nodule.dev/<setting>` say, for all of its containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use nodule_sandbox_proto::{Http, Roots};

/// What the settings begin with.
const PREFIX: &str = "http.nodule.dev/";

/// Where a program is served that has no port: what most tutorials take.
const PORT: u16 = 8080;

/// The longest time-out, in milliseconds: a day.
const LONGEST: u64 = 24 * 60 * 60 * 1000;

/// The most requests of anything at once: their instances' addresses must have room.
const MOST: u32 = 10_000;

/// What the annotations say of outgoing and incoming HTTP.
pub(crate) struct Serving {
    pub(crate) http: Http,
    pub(crate) roots: Vec<Roots>,
}

/// Reads the container's ports and the pod's annotations. `addresses` are the node's, primary first.
pub(crate) fn serving(
    pod: &Pod,
    container: &Container,
    addresses: &[String],
) -> Result<Serving, String> {
    let mut serving =
        Serving { http: Http::new(address(container, addresses)?), roots: Vec::new() };
    let none = BTreeMap::new();
    for (name, value) in pod.metadata.annotations.as_ref().unwrap_or(&none) {
        if let Some(setting) = name.strip_prefix(PREFIX) {
            let wrong = |problem| format!("annotation {name}: \"{value}\" {problem}");
            serving.set(setting, value).map_err(|problem| match problem {
                Problem::Unknown => format!("annotation {name}: there is no such setting"),
                Problem::Value(problem) => wrong(problem),
            })?;
        }
    }
    Ok(serving)
}

enum Problem {
    Unknown,
    Value(&'static str),
}

impl Serving {
    fn set(&mut self, setting: &str, value: &str) -> Result<(), Problem> {
        let http = &mut self.http;
        match setting {
            "instance-reuse" => http.instance_reuse = number(value, 1, u32::MAX)?,
            "concurrency" => http.concurrency = number(value, 1, MOST)?,
            "queue" => http.queue = number(value, 0, MOST)?,
            "request-timeout" => http.request_timeout = time(value)?,
            "stream-timeout" => http.stream_timeout = time(value)?,
            "keep-alive" => http.keep_alive = time(value)?,
            "access-log" => http.access_log = truth(value)?,
            "root-certificates" => self.roots.push(Roots::Pem(value.to_owned())),
            _ => return Err(Problem::Unknown),
        }
        Ok(())
    }
}

fn number(value: &str, least: u32, most: u32) -> Result<u32, Problem> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or(Problem::Value(match least {
        0 => "is not a number from 0 to 10000",
        _ if most == MOST => "is not a number from 1 to 10000",
        _ => "is not a number from 1",
    }))
}

/// A time as Kubernetes writes it: `500ms`, `30s`, `5m`.
fn time(value: &str) -> Result<u64, Problem> {
    let parse = || {
        let digits = value.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, unit) = value.split_at_checked(digits)?;
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit)
    };
    let time = parse().filter(|time| (1..=LONGEST).contains(time));
    time.ok_or(Problem::Value("is not a time such as 500ms, 30s or 5m, of at most 24h"))
}

fn truth(value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| Problem::Value("is neither true nor false"))
}

/// The pod's address: of all the node has, unless the port names one.
fn address(container: &Container, addresses: &[String]) -> Result<SocketAddr, String> {
    let Some(port) = port(container) else { return Ok((any(addresses), PORT).into()) };
    let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| format!("containerPort {} is no port", port.container_port))?;
    let ip = match port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) => ip.parse().map_err(|_| format!("hostIP \"{ip}\" is no address"))?,
        None => any(addresses),
    };
    Ok((ip, number).into())
}

fn port(container: &Container) -> Option<&ContainerPort> {
    let ports = container.ports.as_deref().unwrap_or_default();
    let is_tcp = |port: &&ContainerPort| port.protocol.as_deref().is_none_or(|name| name == "TCP");
    let named = ports.iter().filter(is_tcp).find(|port| port.name.as_deref() == Some("http"));
    named.or_else(|| ports.iter().find(is_tcp))
}

/// The wildcard of the node's own kind of address. That of IPv6 takes IPv4 too.
fn any(addresses: &[String]) -> IpAddr {
    match addresses.first().and_then(|address| address.parse().ok()) {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        Some(IpAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(ports: &[(i32, Option<&str>, Option<&str>)]) -> Container {
        let port = |(container_port, name, protocol): &(i32, Option<&str>, Option<&str>)| {
            let text = |text: &Option<&str>| text.map(ToOwned::to_owned);
            let (name, protocol) = (text(name), text(protocol));
            ContainerPort { container_port: *container_port, name, protocol, ..Default::default() }
        };
        Container { ports: Some(ports.iter().map(port).collect()), ..Default::default() }
    }

    fn annotated(setting: &str, value: &str) -> Result<Serving, String> {
        let mut pod = Pod::default();
        let all = pod.metadata.annotations.get_or_insert_default();
        all.insert(format!("{PREFIX}{setting}"), value.to_owned());
        serving(&pod, &Container::default(), &[])
    }

    #[test]
    fn the_first_port_or_the_one_that_is_named_http_is_served() {
        let none = || Container::default();
        for (container, port) in [
            (none(), 8080),
            (ports(&[(80, None, None), (81, None, None)]), 80),
            (ports(&[(80, None, None), (81, Some("http"), None)]), 81),
            (ports(&[(53, None, Some("UDP")), (80, None, Some("TCP"))]), 80),
        ] {
            let address = address(&container, &["10.0.0.1".into()]).unwrap();
            assert_eq!(address, ([0, 0, 0, 0], port).into());
        }
        assert!(address(&ports(&[(70_000, None, None)]), &[]).unwrap_err().contains("70000"));
    }

    #[test]
    fn the_address_is_any_of_the_nodes_kind_or_the_one_that_is_named() {
        assert_eq!(any(&["fd00::1".into()]), Ipv6Addr::UNSPECIFIED);
        let mut container = ports(&[(80, None, None)]);
        let port = container.ports.as_mut().unwrap().first_mut().unwrap();
        port.host_ip = Some("127.0.0.1".into());
        assert_eq!(address(&container, &[]).unwrap(), ([127, 0, 0, 1], 80).into());
    }

    #[test]
    fn settings_are_annotations() {
        assert_eq!(annotated("instance-reuse", "128").unwrap().http.instance_reuse, 128);
        assert_eq!(annotated("queue", "0").unwrap().http.queue, 0);
        assert_eq!(annotated("request-timeout", "1500ms").unwrap().http.request_timeout, 1500);
        assert_eq!(annotated("stream-timeout", "2h").unwrap().http.stream_timeout, 7_200_000);
        assert!(annotated("access-log", "true").unwrap().http.access_log);
        let roots = annotated("root-certificates", "PEM").unwrap().roots;
        assert_eq!(roots, [Roots::Pem("PEM".into())]);
    }

    #[test]
    fn a_setting_that_is_wrong_is_named() {
        for (setting, value, words) in [
            ("speed", "1", "annotation http.nodule.dev/speed: there is no such setting"),
            ("concurrency", "0", "concurrency: \"0\" is not a number from 1 to 10000"),
            ("queue", "many", "is not a number from 0"),
            ("instance-reuse", "0", "is not a number from 1"),
            ("keep-alive", "5", "is not a time such as"),
            ("keep-alive", "25h", "is not a time such as"),
            ("request-timeout", "0s", "is not a time such as"),
            ("access-log", "yes", "is neither true nor false"),
        ] {
            let problem = annotated(setting, value).err().unwrap();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
