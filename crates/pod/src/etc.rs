//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`, as a guest finds them. The host looks names up by the same text.
//!
//! The files and their order are the kubelet's (`k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`)
//! and containerd's (`resolv.conf`).

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use nodule_sandbox_proto::{Access, Mount, Names};

/// Where the guest finds them.
const FOLDER: &str = "/etc";

/// What the kernel takes as a host name (`HOST_NAME_MAX`).
const LONGEST_NAME: usize = 64;
/// A DNS label.
const LONGEST_LABEL: usize = 63;

/// Who a pod is in its own network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What `hostname` would say.
    pub(crate) name: String,
    /// The same without a domain.
    label: String,
    /// The domain of a pod that has a `subdomain`.
    domain: Option<String>,
}

impl Identity {
    /// Of a pod on `node` in the cluster of this domain; or why its name cannot be.
    pub(crate) fn of(pod: &Pod, node: &str, cluster_domain: &str) -> Result<Self, String> {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        if spec.host_network == Some(true) {
            let name = node.to_owned();
            return Ok(Self { label: name.clone(), name, domain: None });
        }
        if let Some(name) = spec.hostname_override.clone() {
            return Ok(Self { label: name.clone(), name, domain: None });
        }
        let given = spec.hostname.as_deref().filter(|name| !name.is_empty());
        let label = label(given.or(pod.metadata.name.as_deref()).unwrap_or_default());
        let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let domain = subdomain.map(|sub| format!("{sub}.{namespace}.svc.{cluster_domain}"));
        let full = domain.as_ref().filter(|_| spec.set_hostname_as_fqdn == Some(true));
        let name = full.map_or(label.clone(), |domain| format!("{label}.{domain}"));
        if name.len() > LONGEST_NAME {
            return Err(format!(
                "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {name} is too long ({LONGEST_NAME} characters is the max, {} characters requested)",
                name.len()
            ));
        }
        Ok(Self { name, label, domain })
    }
}

fn label(name: &str) -> String {
    name.chars().take(LONGEST_LABEL).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// The hosts(5) of a pod. `node` is the node's own, which a pod in the node's network gets.
pub(crate) fn hosts(
    spec: &PodSpec,
    identity: &Identity,
    addresses: &[String],
    node: &str,
) -> String {
    let mut text = if spec.host_network == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{node}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::\tip6-localnet\n\
            fe00::\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\n\
            fe00::2\tip6-allrouters\n"
            .to_owned();
        let Identity { label, domain, .. } = identity;
        for address in addresses {
            text += &match domain {
                Some(domain) => format!("{address}\t{label}.{domain}\t{label}\n"),
                None => format!("{address}\t{label}\n"),
            };
        }
        text
    };
    let mut aliases = spec.host_aliases.iter().flatten().peekable();
    if aliases.peek().is_some() {
        text += "\n# Entries added by HostAliases.\n";
    }
    for alias in aliases {
        let names = alias.hostnames.iter().flatten().map(String::as_str).collect::<Vec<_>>();
        text += &format!("{}\t{}\n", alias.ip, names.join("\t"));
    }
    text
}

/// The resolv.conf(5) that says what the host does.
fn resolv_conf(names: &Names) -> String {
    let mut text = String::new();
    if !names.search.is_empty() {
        text += &format!("search {}\n", names.search.join(" "));
    }
    for server in &names.servers {
        text += &format!("nameserver {}\n", server.ip());
    }
    let usual = Names::default();
    let mut options = Vec::new();
    let mut number = |name: &str, value: u8, usual: u8| {
        if value != usual {
            options.push(format!("{name}:{value}"));
        }
    };
    number("ndots", names.ndots, usual.ndots);
    number("timeout", names.timeout, usual.timeout);
    number("attempts", names.attempts, usual.attempts);
    if names.rotate {
        options.push("rotate".to_owned());
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

/// What the files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etc {
    files: [(&'static str, String); 3],
}

impl Etc {
    pub(crate) fn new(hosts: String, names: &Names, identity: &Identity) -> Self {
        let hostname = format!("{}\n", identity.name);
        Self {
            files: [("hosts", hosts), ("resolv.conf", resolv_conf(names)), ("hostname", hostname)],
        }
    }

    /// Writes the files to `folder`, each all at once. Blocking.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        for (name, text) in &self.files {
            let path = folder.join(name);
            if std::fs::read_to_string(&path).is_ok_and(|known| known == *text) {
                continue;
            }
            // Beside the folder: guests see what is in it.
            let temporary = folder.with_extension("tmp");
            std::fs::write(&temporary, text)?;
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o644))?;
            std::fs::rename(&temporary, &path)?;
        }
        Ok(())
    }

    /// Adds the files of `folder` to what the guest sees, where no mount of its own holds them: as three files beside those of
    /// its image or others that are mounted into `/etc`; else as the whole of its `/etc`. Blocking, but for a look at the
    /// mounts only.
    pub(crate) fn mount(&self, folder: &Path, image: Option<&Path>, mounts: &mut Vec<Mount>) {
        let is_image = |mount: &Mount| image == Some(&*mount.host);
        let over = |mount: &Mount| match mount.guest.trim_end_matches('/') {
            "" => !is_image(mount),
            guest => guest == FOLDER,
        };
        if mounts.iter().any(over) {
            return;
        }
        let read_only = |host: PathBuf, guest: String| Mount {
            host,
            sub_path: None,
            guest,
            access: Access::ReadOnly,
        };
        if !mounts.iter().any(|mount| is_file_within(mount) || is_image(mount)) {
            return mounts.push(read_only(folder.to_owned(), FOLDER.to_owned()));
        }
        for (name, _) in &self.files {
            let guest = format!("{FOLDER}/{name}");
            if mounts.iter().all(|mount| mount.guest != guest) {
                mounts.push(read_only(folder.join(name), guest));
            }
        }
    }
}

/// Whether a mount is a file that lies in the guest's `/etc` itself.
fn is_file_within(mount: &Mount) -> bool {
    let path = mount.sub_path.iter().fold(mount.host.clone(), |host, part| host.join(part));
    Path::new(&mount.guest).parent() == Some(Path::new(FOLDER)) && !path.is_dir()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value) -> Pod {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec});
        serde_json::from_value(pod).unwrap()
    }

    fn identity(spec: &Value) -> Result<Identity, String> {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        Identity::of(&pod(&spec), "n1", "cluster.local")
    }

    #[test]
    fn a_pods_name_is_its_own_its_hostname_its_override_or_its_nodes() {
        let full = "web-0.sub.shop.svc.cluster.local";
        for (spec, name) in [
            (json!({}), "web-0"),
            (json!({"hostname": "db"}), "db"),
            (json!({"hostname": "db", "hostnameOverride": "a.b"}), "a.b"),
            (json!({"hostNetwork": true}), "n1"),
            (json!({"subdomain": "sub"}), "web-0"),
            (json!({"subdomain": "sub", "setHostnameAsFQDN": true}), full),
            (json!({"setHostnameAsFQDN": true}), "web-0"),
            (json!({"hostname": format!("{}-x", "a".repeat(62))}), &"a".repeat(62)),
        ] {
            assert_eq!(identity(&spec).unwrap().name, name, "{spec}");
        }
        let long = json!({"subdomain": "s".repeat(50), "setHostnameAsFQDN": true});
        assert!(identity(&long).unwrap_err().contains("is too long (64 characters is the max"));
    }

    fn hosts_of(spec: &Value) -> String {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        let addresses = ["10.0.0.7".to_owned(), "fd00::7".to_owned()];
        let spec: PodSpec = pod(&spec).spec.unwrap();
        let identity = Identity::of(
            &Pod { spec: Some(spec.clone()), ..pod(&json!({"containers": []})) },
            "n1",
            "c.l",
        );
        hosts(&spec, &identity.unwrap(), &addresses, "192.0.2.9\tnode-only\n")
    }

    #[test]
    fn the_hosts_file_is_the_kubelets() {
        let text = hosts_of(&json!({"subdomain": "sub", "hostAliases": [
            {"ip": "192.0.2.1", "hostnames": ["a", "b"]}]}));
        let wanted = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
            10.0.0.7\tweb-0.sub.shop.svc.c.l\tweb-0\nfd00::7\tweb-0.sub.shop.svc.c.l\tweb-0\n\
            \n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n";
        assert_eq!(text, wanted);
        assert!(hosts_of(&json!({})).ends_with("10.0.0.7\tweb-0\nfd00::7\tweb-0\n"));
        let host = hosts_of(&json!({"hostNetwork": true}));
        assert_eq!(host, "# Kubernetes-managed hosts file (host network).\n192.0.2.9\tnode-only\n");
    }

    #[test]
    fn the_resolv_conf_says_what_the_host_does() {
        let text = "search a.example b.example\nnameserver 192.0.2.1\nnameserver fd00::1\n\
                    options ndots:5 timeout:2 attempts:3 rotate\n";
        assert_eq!(resolv_conf(&crate::resolv::resolv(text)), text);
        assert_eq!(resolv_conf(&Names::default()), "");
    }

    fn mounted(guest: &[(&Path, &str)]) -> Vec<String> {
        let identity = identity(&json!({})).unwrap();
        let etc = Etc::new(String::new(), &Names::default(), &identity);
        let mount = |(host, guest): &(&Path, &str)| Mount {
            host: host.to_path_buf(),
            sub_path: None,
            guest: (*guest).to_owned(),
            access: Access::ReadWrite,
        };
        let mut mounts: Vec<_> = guest.iter().map(mount).collect();
        etc.mount(Path::new("/x"), Some(Path::new("/image")), &mut mounts);
        mounts.split_off(guest.len()).into_iter().map(|mount| mount.guest).collect()
    }

    #[test]
    fn files_are_added_where_no_mount_holds_them() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path(), &root.path().join("file"));
        std::fs::write(file, "").unwrap();
        assert_eq!(mounted(&[]), ["/etc"]);
        assert_eq!(mounted(&[(folder, "/data"), (folder, "/etc/ssl")]), ["/etc"]);
        for guest in ["/", "/etc", "/etc/"] {
            assert!(mounted(&[(folder, guest)]).is_empty(), "{guest}");
        }
        let all = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
        assert_eq!(mounted(&[(file, "/etc/app.yaml")]), all);
        assert_eq!(mounted(&[(file, "/etc/hosts")]), all[1..]);
        let image = Path::new("/image");
        assert_eq!(mounted(&[(image, "/")]), all);
        assert!(mounted(&[(image, "/"), (folder, "/etc")]).is_empty());
    }

    #[test]
    fn files_are_written_for_everybody_to_read() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc");
        let identity = identity(&json!({})).unwrap();
        for text in ["one", "two"] {
            Etc::new(text.to_owned(), &Names::default(), &identity).write(&folder).unwrap();
            assert_eq!(std::fs::read_to_string(folder.join("hosts")).unwrap(), text);
        }
        assert_eq!(std::fs::read_to_string(folder.join("hostname")).unwrap(), "web-0\n");
        assert_eq!(std::fs::metadata(folder.join("hosts")).unwrap().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    }
}
