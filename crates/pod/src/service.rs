//! The services of the cluster, for the variables by which guests find them ("Service links").

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::StreamExt;
use k8s_openapi::api::core::v1 as api;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use tokio::sync::watch;
use tracing::{debug, warn};

/// The waits between two tries to watch.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// The services that have an address, by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Services {
    namespaces: BTreeMap<String, BTreeMap<String, Service>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    address: String,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    number: i32,
    protocol: String,
}

impl Services {
    fn put(&mut self, service: &api::Service) {
        let (namespace, name) = key(service);
        match Service::of(service) {
            Some(service) => {
                self.namespaces.entry(namespace).or_default().insert(name, service);
            }
            None => self.take(&namespace, &name),
        }
    }

    fn take(&mut self, namespace: &str, name: &str) {
        if let Some(services) = self.namespaces.get_mut(namespace) {
            services.remove(name);
            if services.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// The variables for a pod: those of its namespace if it wants them (`enableServiceLinks`), and always those of the
    /// API server's own service, whose name is nobody else's (the kubelet's `getServiceEnvVarMap`).
    pub(crate) fn variables(&self, namespace: &str, links: bool) -> Vec<(String, String)> {
        const MASTER: (&str, &str) = ("default", "kubernetes");
        let all = |namespace| self.namespaces.get(namespace).into_iter().flatten();
        let master = all(MASTER.0).filter(|(name, _)| *name == MASTER.1);
        let has_master = master.clone().next().is_some();
        let own = all(namespace).filter(|(name, _)| links && !(has_master && *name == MASTER.1));
        own.chain(master).flat_map(|(name, service)| service.variables(name)).collect()
    }
}

impl Service {
    /// None if it has no address of its own.
    fn of(service: &api::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let address = spec.cluster_ip.clone().filter(|ip| !matches!(ip.as_str(), "" | "None"))?;
        let ports = spec.ports.iter().flatten().map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            number: port.port,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        });
        Some(Self { address, ports: ports.collect() })
    }

    fn variables(&self, name: &str) -> Vec<(String, String)> {
        let Some(first) = self.ports.first() else { return Vec::new() };
        let prefix = variable(name);
        let mut all = vec![
            (format!("{prefix}_SERVICE_HOST"), self.address.clone()),
            (format!("{prefix}_SERVICE_PORT"), first.number.to_string()),
        ];
        for port in self.ports.iter().filter(|port| !port.name.is_empty()) {
            let name = format!("{prefix}_SERVICE_PORT_{}", variable(&port.name));
            all.push((name, port.number.to_string()));
        }
        all.push((format!("{prefix}_PORT"), self.url(first)));
        for port in &self.ports {
            let prefix = format!("{prefix}_PORT_{}_{}", port.number, port.protocol.to_uppercase());
            all.extend([
                (prefix.clone(), self.url(port)),
                (format!("{prefix}_PROTO"), port.protocol.to_lowercase()),
                (format!("{prefix}_PORT"), port.number.to_string()),
                (format!("{prefix}_ADDR"), self.address.clone()),
            ]);
        }
        all
    }

    fn url(&self, port: &Port) -> String {
        let protocol = port.protocol.to_lowercase();
        match self.address.parse() {
            Ok(IpAddr::V6(ip)) => format!("{protocol}://[{ip}]:{}", port.number),
            Ok(IpAddr::V4(_)) | Err(_) => format!("{protocol}://{}:{}", self.address, port.number),
        }
    }
}

fn key(service: &api::Service) -> (String, String) {
    let meta = &service.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// A name as a part of a variable's.
fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Watches the services of the cluster for as long as somebody wants to know them. None until they were listed once.
pub(crate) async fn follow(client: kube::Client, services: watch::Sender<Option<Services>>) {
    let waits = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_jitter()
        .without_max_times();
    let api: Api<api::Service> = Api::all(client);
    let watch = watcher::watcher(api, watcher::Config::default());
    let mut watch = std::pin::pin!(watch.backoff(ExponentialBackoff::from(waits)));
    let (mut listed, mut away) = (Services::default(), false);
    while let Some(event) = watch.next().await {
        match event {
            Ok(event) => {
                away = false;
                take_in(event, &mut listed, &services);
            }
            Err(error) if std::mem::replace(&mut away, true) => {
                debug!(error = &error as &dyn std::error::Error, "still no watch of services");
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "services are not watched: tried again"
                );
            }
        }
    }
}

fn take_in(
    event: Event<api::Service>,
    listed: &mut Services,
    services: &watch::Sender<Option<Services>>,
) {
    match event {
        Event::Init => *listed = Services::default(),
        Event::InitApply(service) => listed.put(&service),
        Event::InitDone => {
            services.send_replace(Some(std::mem::take(listed)));
        }
        Event::Apply(service) => change(services, |all| all.put(&service)),
        Event::Delete(service) => change(services, |all| {
            let (namespace, name) = key(&service);
            all.take(&namespace, &name);
        }),
    }
}

/// In place: it is a map of the whole cluster.
fn change(services: &watch::Sender<Option<Services>>, change: impl FnOnce(&mut Services)) {
    services.send_modify(|services| change(services.get_or_insert_default()));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str, ports: &Value) -> api::Service {
        let service = json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": ports}});
        serde_json::from_value(service).unwrap()
    }

    fn services() -> Services {
        let mut all = Services::default();
        let web = json!([{"name": "http", "port": 80}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]);
        all.put(&service("shop", "web-front", "10.0.0.5", &web));
        all.put(&service("shop", "headless", "None", &json!([{"port": 1}])));
        all.put(&service("other", "db", "10.0.0.6", &json!([{"port": 1}])));
        all.put(&service(
            "default",
            "kubernetes",
            "10.0.0.1",
            &json!([{"name": "https", "port": 443}]),
        ));
        all.put(&service("default", "more", "10.0.0.9", &json!([{"port": 1}])));
        all
    }

    #[test]
    fn a_service_is_told_in_all_of_the_contracts_variables() {
        let pairs = services().variables("shop", true);
        let told: Vec<String> = pairs
            .iter()
            .filter(|(name, _)| name.starts_with("WEB"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let wanted = [
            "WEB_FRONT_SERVICE_HOST=10.0.0.5",
            "WEB_FRONT_SERVICE_PORT=80",
            "WEB_FRONT_SERVICE_PORT_HTTP=80",
            "WEB_FRONT_SERVICE_PORT_DNS_UDP=53",
            "WEB_FRONT_PORT=tcp://10.0.0.5:80",
            "WEB_FRONT_PORT_80_TCP=tcp://10.0.0.5:80",
            "WEB_FRONT_PORT_80_TCP_PROTO=tcp",
            "WEB_FRONT_PORT_80_TCP_PORT=80",
            "WEB_FRONT_PORT_80_TCP_ADDR=10.0.0.5",
            "WEB_FRONT_PORT_53_UDP=udp://10.0.0.5:53",
            "WEB_FRONT_PORT_53_UDP_PROTO=udp",
            "WEB_FRONT_PORT_53_UDP_PORT=53",
            "WEB_FRONT_PORT_53_UDP_ADDR=10.0.0.5",
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_pod_sees_its_namespaces_services_if_it_wants_them_and_always_the_api_servers() {
        let hosts = |namespace: &str, links: bool| -> Vec<String> {
            let all = services().variables(namespace, links);
            let hosts = all.into_iter().filter(|(name, _)| name.ends_with("_SERVICE_HOST"));
            hosts.map(|(name, _)| name.trim_end_matches("_SERVICE_HOST").to_owned()).collect()
        };
        assert_eq!(hosts("shop", true), ["WEB_FRONT", "KUBERNETES"]);
        assert_eq!(hosts("shop", false), ["KUBERNETES"]);
        assert_eq!(hosts("default", true), ["MORE", "KUBERNETES"]);
        assert_eq!(hosts("empty", true), ["KUBERNETES"]);
    }

    #[test]
    fn an_ipv6_address_is_in_brackets_where_a_port_follows() {
        let mut all = Services::default();
        all.put(&service("a", "six", "fd00::1", &json!([{"port": 7}])));
        let url = all.variables("a", true).into_iter().find(|(name, _)| name == "SIX_PORT");
        assert_eq!(url.unwrap().1, "tcp://[fd00::1]:7");
    }

    #[test]
    fn changes_are_taken_in() {
        let (sender, seen) = watch::channel(None);
        let mut listed = Services::default();
        let one = |name: &str| service("a", name, "10.0.0.1", &json!([{"port": 1}]));
        let count =
            || seen.borrow().as_ref().map(|all: &Services| all.variables("a", true).len() / 6);
        let mut take = |event| take_in(event, &mut listed, &sender);
        take(Event::Init);
        take(Event::InitApply(one("x")));
        assert_eq!(count(), None, "not before all are listed");
        take(Event::InitDone);
        assert_eq!(count(), Some(1));
        take(Event::Apply(one("y")));
        assert_eq!(count(), Some(2));
        take(Event::Delete(one("x")));
        assert_eq!(count(), Some(1));
        // Its address is taken away.
        take(Event::Apply(service("a", "y", "None", &json!([]))));
        assert_eq!(count(), Some(0));
    }
}
