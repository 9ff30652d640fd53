//! Whom a container's process becomes: a user of the pod's own, or the one that its securityContext names.
//!
//! A pod's user is taken when its first container is about to run, kept in its record, and given to another pod only when
//! nothing of this one is left.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use nodule_sandbox_proto::User;

/// The users that pods may become, and those that are taken.
#[derive(Debug)]
pub(crate) struct Users {
    range: RangeInclusive<u32>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    users: BTreeSet<u32>,
    /// Where the next search begins: a user that was given back is not taken again at once.
    next: u32,
}

impl Users {
    pub(crate) fn new(range: RangeInclusive<u32>) -> Self {
        let next = *range.start();
        Self { range, taken: Mutex::new(Taken { users: BTreeSet::new(), next }) }
    }

    /// A user that no pod of this node has; none if all are taken.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (*self.range.start(), *self.range.end());
        let free = (taken.next.max(first)..=last)
            .chain(first..=last)
            .find(|user| !taken.users.contains(user))?;
        taken.users.insert(free);
        taken.next = free.saturating_add(1);
        Some(free)
    }

    /// Notes that a pod has `user` already.
    pub(crate) fn recall(&self, user: u32) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).users.insert(user);
    }

    /// Nothing of the pod that had `user` is left.
    pub(crate) fn give_back(&self, user: u32) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).users.remove(&user);
    }

    /// Whether `id` is one that pods are given.
    pub(crate) fn holds(&self, id: u32) -> bool {
        self.range.contains(&id)
    }
}

/// What may be said of a pod's users.
pub(crate) struct Choice<'a> {
    pub(crate) spec: &'a PodSpec,
    pub(crate) container: &'a Container,
    /// The pod's own.
    pub(crate) own: Option<u32>,
    /// None where this agent cannot make a process another user's.
    pub(crate) users: Option<&'a Users>,
}

impl Choice<'_> {
    /// The user of the container's process; none where it stays the agent's.
    pub(crate) fn user(&self) -> Result<Option<User>, String> {
        let uid = self.id("runAsUser", |c| c.run_as_user, |p| p.run_as_user)?;
        let gid = self.id("runAsGroup", |c| c.run_as_group, |p| p.run_as_group)?;
        if self.must_not_be_root() && uid == Some(0) {
            return Err(
                "securityContext: container has runAsNonRoot and runAsUser 0: set another \
                        runAsUser, or none"
                    .to_owned(),
            );
        }
        let Some(own) = self.own.filter(|_| self.users.is_some()) else {
            return match (uid, gid) {
                (None, None) => Ok(None),
                _ => Err(
                    "securityContext: runAsUser and runAsGroup need an agent that runs as root: \
                          remove them, or run the agent as root"
                        .to_owned(),
                ),
            };
        };
        Ok(Some(User { uid: uid.unwrap_or(own), gid: gid.unwrap_or(own), groups: self.groups()? }))
    }

    fn must_not_be_root(&self) -> bool {
        let container = self.container.security_context.as_ref();
        let pod = self.spec.security_context.as_ref();
        container
            .and_then(|context| context.run_as_non_root)
            .or(pod.and_then(|context| context.run_as_non_root))
            .unwrap_or(false)
    }

    /// The container's word, or else the pod's.
    fn id(
        &self,
        field: &str,
        container: impl Fn(&k8s_openapi::api::core::v1::SecurityContext) -> Option<i64>,
        pod: impl Fn(&k8s_openapi::api::core::v1::PodSecurityContext) -> Option<i64>,
    ) -> Result<Option<u32>, String> {
        let asked = self.container.security_context.as_ref().and_then(container).or(self
            .spec
            .security_context
            .as_ref()
            .and_then(pod));
        asked.map(|id| self.checked(field, id)).transpose()
    }

    fn groups(&self) -> Result<Vec<u32>, String> {
        let context = self.spec.security_context.as_ref();
        let groups = context.and_then(|context| context.supplemental_groups.as_ref());
        let named = groups.into_iter().flatten().map(|id| ("supplementalGroups", *id));
        let volumes = context.and_then(|context| context.fs_group).map(|id| ("fsGroup", id));
        named.chain(volumes).map(|(field, id)| self.checked(field, id)).collect()
    }

    /// An id of the API's range (0 to 2^31-1) that is not another pod's.
    fn checked(&self, field: &str, id: i64) -> Result<u32, String> {
        let number = i32::try_from(id).ok().and_then(|id| u32::try_from(id).ok());
        let number = number.ok_or_else(|| {
            format!("securityContext: {field} {id} is not between 0 and 2147483647")
        })?;
        let other = self.users.is_some_and(|users| users.holds(number)) && self.own != Some(number);
        if other {
            return Err(format!(
                "securityContext: {field} {id} is among the users that this node gives to pods: \
                 choose another, or none"
            ));
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};

    use super::*;

    #[test]
    fn no_two_pods_have_one_user_and_one_given_back_comes_last() {
        let users = Users::new(10..=12);
        users.recall(11);
        assert_eq!([users.take(), users.take(), users.take()], [Some(10), Some(12), None]);
        users.give_back(10);
        users.give_back(11);
        assert_eq!([users.take(), users.take(), users.take()], [Some(10), Some(11), None]);
        users.give_back(10);
        users.give_back(11);
        users.give_back(12);
        assert_eq!([users.take(), users.take(), users.take()], [Some(12), Some(10), Some(11)]);
        for _ in 0..2 {
            users.give_back(12);
            assert_eq!(users.take(), Some(12), "the only one that is free");
        }
    }

    fn choose(
        container: SecurityContext,
        pod: PodSecurityContext,
        own: Option<u32>,
    ) -> Result<Option<User>, String> {
        let users = Users::new(1000..=1999);
        let container = Container { security_context: Some(container), ..Container::default() };
        let spec = PodSpec { security_context: Some(pod), ..PodSpec::default() };
        let choice = Choice {
            spec: &spec,
            container: &container,
            own,
            users: own.is_some().then_some(&users),
        };
        choice.user()
    }

    #[test]
    fn the_container_says_more_than_the_pod_and_the_pod_more_than_the_node() {
        let user = |uid, gid, groups: &[u32]| Some(User { uid, gid, groups: groups.to_vec() });
        let container = |user, group| SecurityContext {
            run_as_user: user,
            run_as_group: group,
            ..SecurityContext::default()
        };
        let pod = PodSecurityContext {
            run_as_user: Some(7),
            supplemental_groups: Some(vec![3]),
            fs_group: Some(4),
            ..PodSecurityContext::default()
        };
        let none = PodSecurityContext::default;
        assert_eq!(choose(container(None, None), none(), Some(1001)), Ok(user(1001, 1001, &[])));
        assert_eq!(
            choose(container(None, None), pod.clone(), Some(1001)),
            Ok(user(7, 1001, &[3, 4]))
        );
        assert_eq!(choose(container(Some(0), Some(9)), pod, Some(1001)), Ok(user(0, 9, &[3, 4])));
        assert_eq!(
            choose(container(Some(1001), None), none(), Some(1001)),
            Ok(user(1001, 1001, &[]))
        );
        assert_eq!(choose(container(None, None), none(), None), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_refused_with_field_and_remedy() {
        let user = |id| SecurityContext { run_as_user: Some(id), ..SecurityContext::default() };
        let root = SecurityContext { run_as_non_root: Some(true), ..user(0) };
        let groups = PodSecurityContext {
            supplemental_groups: Some(vec![1500]),
            ..PodSecurityContext::default()
        };
        let none = PodSecurityContext::default;
        let table = [
            (choose(user(1002), none(), Some(1001)), "choose another"),
            (choose(SecurityContext::default(), groups, Some(1001)), "supplementalGroups 1500"),
            (choose(user(-1), none(), Some(1001)), "between 0 and"),
            (choose(user(1 << 31), none(), Some(1001)), "between 0 and"),
            (choose(root, none(), Some(1001)), "runAsNonRoot"),
            (choose(user(5), none(), None), "run the agent as root"),
        ];
        for (result, part) in table {
            let error = result.unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
