//! A pod's cgroup and those of its containers.

use std::ops::Deref;
use std::str::FromStr;

use crate::controllers::{self, Residents};
use crate::limits::Kind;
use crate::{Error, Group, Limits};

/// A pod's quality of service class: `status.qosClass`, which never changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// Every container has equal requests and limits.
    Guaranteed,
    /// Neither of the others.
    Burstable,
    /// No container has any.
    #[default]
    BestEffort,
}

impl Qos {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Guaranteed, Self::Burstable, Self::BestEffort];
}

impl FromStr for Qos {
    type Err = Error;

    /// Reads the API's name.
    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "Guaranteed" => Ok(Self::Guaranteed),
            "Burstable" => Ok(Self::Burstable),
            "BestEffort" => Ok(Self::BestEffort),
            _ => Err(Error::Qos { name: name.to_owned() }),
        }
    }
}

/// The cgroup of a pod: it holds no process itself.
#[derive(Debug, Clone)]
pub struct Pod {
    group: Group,
    uid: String,
}

impl Pod {
    /// Makes it, unless it is there.
    pub(crate) fn create(class: &Group, uid: &str, limits: &Limits) -> Result<Self, Error> {
        let pod = Self {
            group: class.child(&format!("pod{}", checked(uid)?), Kind::Inner),
            uid: uid.to_owned(),
        };
        pod.group.create()?;
        let marked = pod.top().mark(pod.below());
        marked.map_err(|cause| Error::create(&pod.path(), cause))?;
        controllers::pass_on(&pod.group, Residents::Stay)?;
        pod.limit(limits)?;
        Ok(pod)
    }

    /// The pod in the cgroup of this name, if this program made it.
    pub(crate) fn find(class: &Group, name: &str) -> Option<Self> {
        let uid = name.strip_prefix("pod")?;
        let group = class.child(&format!("pod{}", checked(uid).ok()?), Kind::Inner);
        group.top().is_marked(group.below()).then(|| Self { group, uid: uid.to_owned() })
    }

    /// The pod's UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The cgroup of the container `id`, if there is one.
    pub fn find_container(&self, id: &str) -> Option<Container> {
        let group = self.group.child(checked(id).ok()?, Kind::Container);
        group.open().is_ok().then_some(Container { group })
    }

    /// Makes the cgroup of a container, unless it is there, and sets its limits. `id` is the container's on this node.
    pub fn container(&self, id: &str, limits: &Limits) -> Result<Container, Error> {
        let container = Container { group: self.group.child(checked(id)?, Kind::Container) };
        container.group.create()?;
        container.limit(limits)?;
        Ok(container)
    }
}

impl Deref for Pod {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

/// The cgroup of a container, with its processes.
#[derive(Debug, Clone)]
pub struct Container {
    group: Group,
}

impl Deref for Container {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

/// Names have no dot, so that none is that of a file of the kernel's, none leads elsewhere and none is hidden.
fn checked(name: &str) -> Result<&str, Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good = !name.is_empty() && name.len() <= 128 && name.bytes().all(fits);
    if good { Ok(name) } else { Err(Error::Name { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        let long = "a".repeat(129);
        for (name, good) in [
            ("0b2f7a1e-5f9c-4a63-9f38-6c3b1a1f0a11", true),
            ("d41d8cd98f00b204e9800998ecf8427e", true),
            ("app_1", true),
            (&long[..128], true),
            (&long, false),
            ("", false),
            (".", false),
            ("..", false),
            ("../kubepods", false),
            ("a/b", false),
            ("cgroup.procs", false),
            ("a\n", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(checked(name).is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn classes_have_the_names_of_the_api() {
        for (name, wanted) in [
            ("Guaranteed", Some(Qos::Guaranteed)),
            ("Burstable", Some(Qos::Burstable)),
            ("BestEffort", Some(Qos::BestEffort)),
            ("besteffort", None),
            ("", None),
        ] {
            assert_eq!(name.parse::<Qos>().ok(), wanted, "{name:?}");
        }
    }
}
