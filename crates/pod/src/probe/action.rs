//! What a probe or a hook asks of a container, resolved: pure.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use url::Url;

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Http(Get),
    /// That somebody accepts a connection.
    Tcp {
        host: String,
        port: u16,
    },
    /// `grpc.health.v1.Health/Check` (github.com/grpc/grpc, doc/health-checking.md).
    Grpc {
        host: String,
        port: u16,
        service: String,
        /// Whatever certificate is shown.
        tls: bool,
    },
    Exec(Vec<String>),
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) url: Url,
    /// Without `Host`.
    pub(crate) headers: HeaderMap,
    /// Stands in for the URL's.
    pub(crate) host: Option<HeaderValue>,
}

/// Who asks, for the `User-Agent`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The pod's address: it is asked where the spec names no host.
    pub(crate) address: &'a str,
    /// `kube-probe` or `kube-lifecycle`.
    pub(crate) name: &'a str,
    /// The kubelet's version that the node reports.
    pub(crate) version: &'a str,
}

/// What `probe` asks of `container`; or what is wrong with it.
pub(crate) fn action(
    probe: &Probe,
    container: &Container,
    asker: Asker<'_>,
) -> Result<Action, String> {
    if let Some(exec) = &probe.exec {
        return Ok(Action::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(http) = &probe.http_get {
        return get(http, container, asker).map(Action::Http);
    }
    if let Some(tcp) = &probe.tcp_socket {
        return connect(tcp, container, asker);
    }
    let Some(grpc) = &probe.grpc else {
        return Err(format!("missing probe handler for container {}", container.name));
    };
    let service = grpc.service.clone().unwrap_or_default();
    let tls = match grpc.mode.as_deref() {
        None | Some("Plaintext") => false,
        Some("TLS") => true,
        Some(mode) => return Err(format!("grpc.mode: \"{mode}\" is not known to this node")),
    };
    Ok(Action::Grpc { host: asker.address.to_owned(), port: number(grpc.port)?, service, tls })
}

fn connect(
    tcp: &TCPSocketAction,
    container: &Container,
    asker: Asker<'_>,
) -> Result<Action, String> {
    let host = tcp.host.clone().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| asker.address.to_owned());
    Ok(Action::Tcp { host, port: port(&tcp.port, container)? })
}

/// The request that `http` describes.
pub(crate) fn get(
    http: &HTTPGetAction,
    container: &Container,
    asker: Asker<'_>,
) -> Result<Get, String> {
    if let Some(protocol) = http.protocol.as_ref().filter(|protocol| *protocol != "HTTP/1.1") {
        return Err(format!("httpGet.protocol: \"{protocol}\" is not supported by this node"));
    }
    let host = http.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(asker.address);
    let port = port(&http.port, container)?;
    let scheme = if http.scheme.as_deref() == Some("HTTPS") { "https" } else { "http" };
    let url = url(scheme, host, port, http.path.as_deref().unwrap_or_default())?;
    let mut headers = headers(http.http_headers.as_deref().unwrap_or_default())?;
    let own = headers.remove(header::HOST).filter(|host| !host.is_empty());
    complete(&mut headers, asker);
    Ok(Get { url, headers, host: own })
}

/// The path is taken apart by hand: resolved against the host it could name another one.
fn url(scheme: &str, host: &str, port: u16, path: &str) -> Result<Url, String> {
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authority = format!("{scheme}://{bracketed}:{port}/");
    let mut url = Url::parse(&authority).map_err(|error| format!("host \"{host}\": {error}"))?;
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) =
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    Ok(url)
}

fn headers(list: &[HTTPHeader]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for HTTPHeader { name, value } in list {
        let wrong = |_| format!("httpHeaders: \"{name}: {value}\" is no header");
        let key: HeaderName = name.parse().map_err(|_| wrong(()))?;
        headers.append(key, HeaderValue::from_str(value).map_err(|_| wrong(()))?);
    }
    Ok(headers)
}

/// As the kubelet's (`pkg/probe/http`, `newProbeRequest`): what nobody has set is set, what was set to nothing is left out.
fn complete(headers: &mut HeaderMap, asker: Asker<'_>) {
    for own in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER] {
        headers.remove(own);
    }
    let agent = format!("{}/{}", asker.name, minor(asker.version));
    let agent = HeaderValue::from_str(&agent).unwrap_or(HeaderValue::from_static("kube-probe"));
    for (name, default) in
        [(header::USER_AGENT, agent), (header::ACCEPT, HeaderValue::from_static("*/*"))]
    {
        if headers.get(&name).is_some_and(HeaderValue::is_empty) {
            headers.remove(name);
        } else if !headers.contains_key(&name) {
            headers.insert(name, default);
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// `v1.36.3+nodule` is `1.36`.
pub(crate) fn minor(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let part = |text: Option<&str>| text.unwrap_or_default().to_owned();
    format!("{}.{}", part(parts.next()), part(parts.next()))
}

/// The port that a number or the name of one of the container's ports says.
fn port(wanted: &IntOrString, container: &Container) -> Result<u16, String> {
    match wanted {
        IntOrString::Int(port) => number(*port),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            let port = named.map(|port| port.container_port).or_else(|| name.parse().ok());
            number(port.ok_or_else(|| format!("port {name} not found"))?)
        }
    }
}

fn number(port: i32) -> Result<u16, String> {
    let number = u16::try_from(port).ok().filter(|port| *port > 0);
    number.ok_or_else(|| format!("invalid port number: {port}"))
}

/// A number of seconds of the API, at least `least`.
pub(crate) fn seconds(value: Option<i32>, default: u64, least: u64) -> Duration {
    let seconds = value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default);
    Duration::from_secs(seconds.max(least))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerPort, ExecAction, GRPCAction};

    use super::*;

    const ASKER: Asker<'_> =
        Asker { address: "192.0.2.7", name: "kube-probe", version: "v1.36.3+nodule" };

    fn container() -> Container {
        let port = ContainerPort {
            name: Some("web".to_owned()),
            container_port: 8080,
            ..ContainerPort::default()
        };
        Container { name: "app".to_owned(), ports: Some(vec![port]), ..Container::default() }
    }

    fn named(name: &str) -> IntOrString {
        IntOrString::String(name.to_owned())
    }

    fn http(path: &str, port: IntOrString) -> HTTPGetAction {
        HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() }
    }

    fn with(list: &[(&str, &str)]) -> Result<Get, String> {
        let header = |(name, value): &(&str, &str)| HTTPHeader {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let http_headers = Some(list.iter().map(header).collect());
        get(&HTTPGetAction { http_headers, ..http("/", IntOrString::Int(80)) }, &container(), ASKER)
    }

    #[test]
    fn a_url_is_the_pods_unless_a_host_is_named_and_a_path_never_names_one() {
        for (host, scheme, path, url) in [
            (None, None, "/healthz?full=1", "http://192.0.2.7:8080/healthz?full=1"),
            (Some(""), Some("HTTP"), "/", "http://192.0.2.7:8080/"),
            (Some("::1"), Some("HTTPS"), "/", "https://[::1]:8080/"),
            (Some("localhost"), None, "ready#part", "http://localhost:8080/ready"),
            (None, None, "//elsewhere/x", "http://192.0.2.7:8080//elsewhere/x"),
            (None, None, "/a%2Fb c", "http://192.0.2.7:8080/a%2Fb%20c"),
            (None, None, "", "http://192.0.2.7:8080/"),
        ] {
            let host = host.map(str::to_owned);
            let scheme = scheme.map(str::to_owned);
            let asked = HTTPGetAction { host, scheme, ..http(path, named("web")) };
            assert_eq!(get(&asked, &container(), ASKER).unwrap().url.as_str(), url);
        }
        let bad = HTTPGetAction { host: Some("a b".to_owned()), ..http("/", named("web")) };
        assert!(get(&bad, &container(), ASKER).unwrap_err().starts_with("host \"a b\": "));
    }

    #[test]
    fn a_port_is_a_number_or_a_name_of_the_container() {
        for (wanted, found) in [
            (IntOrString::Int(1), Ok(1)),
            (named("web"), Ok(8080)),
            (named("81"), Ok(81)),
            (named("http"), Err("port http not found")),
            (IntOrString::Int(0), Err("invalid port number: 0")),
            (IntOrString::Int(65536), Err("invalid port number: 65536")),
        ] {
            assert_eq!(port(&wanted, &container()), found.map_err(str::to_owned));
        }
    }

    #[test]
    fn headers_are_the_kubelets_unless_they_are_set_and_empty_ones_are_left_out() {
        let text = |headers: &HeaderMap, name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let plain = with(&[]).unwrap();
        assert_eq!(text(&plain.headers, "user-agent").as_deref(), Some("kube-probe/1.36"));
        assert_eq!(text(&plain.headers, "accept").as_deref(), Some("*/*"));
        assert_eq!(text(&plain.headers, "connection").as_deref(), Some("close"));
        assert_eq!(plain.host, None);
        let set = with(&[("accept", ""), ("User-Agent", "me"), ("Host", "shop.example")]).unwrap();
        assert_eq!(text(&set.headers, "accept"), None);
        assert_eq!(text(&set.headers, "user-agent").as_deref(), Some("me"));
        assert_eq!(set.host.unwrap(), "shop.example");
        assert!(!set.headers.contains_key("host"));
        let twice = with(&[("X-A", "1"), ("X-A", "2"), ("Content-Length", "9")]).unwrap();
        assert_eq!(twice.headers.get_all("x-a").iter().count(), 2);
        assert!(!twice.headers.contains_key("content-length"));
        let wrong = with(&[("X-A", "a\nb")]).unwrap_err();
        assert_eq!(wrong, "httpHeaders: \"X-A: a\nb\" is no header");
    }

    #[test]
    fn every_handler_is_an_action_and_none_is_an_error() {
        let tcp = TCPSocketAction { host: None, port: named("web") };
        let grpc = |mode: Option<&str>| GRPCAction {
            port: 9,
            service: None,
            mode: mode.map(str::to_owned),
        };
        let exec = ExecAction { command: Some(vec!["ls".to_owned()]) };
        let act = |probe: &Probe| action(probe, &container(), ASKER);
        let host = || ASKER.address.to_owned();
        let found = act(&Probe { tcp_socket: Some(tcp), ..Probe::default() });
        assert_eq!(found, Ok(Action::Tcp { host: host(), port: 8080 }));
        for (mode, tls) in [(None, false), (Some("Plaintext"), false), (Some("TLS"), true)] {
            let found = act(&Probe { grpc: Some(grpc(mode)), ..Probe::default() });
            let service = String::new();
            assert_eq!(found, Ok(Action::Grpc { host: host(), port: 9, service, tls }));
        }
        let other = act(&Probe { grpc: Some(grpc(Some("QUIC"))), ..Probe::default() });
        assert_eq!(other.unwrap_err(), "grpc.mode: \"QUIC\" is not known to this node");
        let protocol = Some("HTTP/2".to_owned());
        let http = HTTPGetAction { protocol, ..http("/", IntOrString::Int(80)) };
        let other = act(&Probe { http_get: Some(http), ..Probe::default() });
        assert_eq!(
            other.unwrap_err(),
            "httpGet.protocol: \"HTTP/2\" is not supported by this node"
        );
        let found = act(&Probe { exec: Some(exec), ..Probe::default() });
        assert_eq!(found, Ok(Action::Exec(vec!["ls".to_owned()])));
        let none = act(&Probe::default()).unwrap_err();
        assert_eq!(none, "missing probe handler for container app");
    }
}
