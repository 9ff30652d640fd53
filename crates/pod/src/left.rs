//! What is left of a pod whose record cannot be read: its folder still tells of its containers.
//!
//! They run on, and are found again as ever. Neither is one of them started a second time, nor is their user given away.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nodule_sandbox_proto::{CONTAINER, State, User};
use serde::Deserialize;

use crate::record::{Folder, Record, Run};
use crate::user::Users;

/// A pod's folder without a record.
#[derive(Debug)]
pub(crate) struct Left {
    folder: Folder,
    /// By container.
    runs: BTreeMap<String, Begun>,
    /// The user that the pod was given.
    user: Option<u32>,
}

/// The newest run of a container that a process may have been started for.
#[derive(Debug)]
struct Begun {
    attempt: u32,
    told: Told,
}

/// What is read of a `container.json` of any release.
#[derive(Debug, Deserialize)]
struct Told {
    id: String,
    user: Option<User>,
    log: Log,
}

#[derive(Debug, Deserialize)]
struct Log {
    path: PathBuf,
}

impl Left {
    /// Looks at the folder. Of all users that own something there, the pod's own is the one that pods are given.
    pub(crate) fn of(folder: Folder, users: Option<&Users>) -> Self {
        let mut left = Self { runs: BTreeMap::new(), user: None, folder };
        for container in entries(&left.folder.containers()) {
            let path = left.folder.containers().join(&container);
            let mut attempts: Vec<u32> =
                entries(&path).iter().filter_map(|name| name.parse().ok()).collect();
            attempts.sort_unstable();
            for attempt in attempts {
                left.look(&container, attempt, users);
            }
        }
        left
    }

    fn look(&mut self, container: &str, attempt: u32, users: Option<&Users>) {
        let path = self.folder.run(container, attempt);
        let owner = fs::symlink_metadata(State::new(&path).out()).map(|out| out.uid());
        let own = |user: &u32| users.is_some_and(|users| users.holds(*user));
        self.user = owner.ok().filter(own).or(self.user);
        let told = fs::read(path.join(CONTAINER)).ok();
        if let Some(told) = told.and_then(|text| serde_json::from_slice(&text).ok()) {
            self.runs.insert(container.to_owned(), Begun { attempt, told });
        }
    }

    /// The pod's user, which is taken.
    pub(crate) fn user(&self) -> Option<u32> {
        self.user
    }

    /// The pod's folder.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The pod's names, from where its log lies; none if no container of it was begun.
    pub(crate) fn pod(&self) -> Option<Pod> {
        let Begun { told, .. } = self.runs.values().next()?;
        let folder = told.log.path.parent()?.parent()?.file_name()?.to_str()?;
        let mut names = folder.splitn(3, '_').map(str::to_owned);
        let (namespace, name, uid) = (names.next(), names.next(), names.next());
        let metadata = ObjectMeta { namespace, name, uid, ..ObjectMeta::default() };
        Some(Pod { metadata, ..Pod::default() })
    }

    /// A record of `pod`, whose status says what its folder does not.
    pub(crate) fn record(&self, pod: Arc<Pod>, now: Timestamp) -> Record {
        let mut record = Record::new(pod, now);
        record.user = self.user;
        record.admitted = !self.runs.is_empty();
        for (container, begun) in &self.runs {
            let history = record.containers.entry(container.clone()).or_default();
            let known = history.run.take();
            history.run = match known {
                Some(known) if known.attempt > begun.attempt => Some(known),
                known => Some(begun.run(known)),
            };
        }
        record
    }
}

impl Begun {
    /// The run, open until its process is looked for.
    fn run(&self, known: Option<Run>) -> Run {
        let Told { id, user, .. } = &self.told;
        let (image, image_id) =
            known.map(|known| (known.image, known.image_id)).unwrap_or_default();
        Run {
            attempt: self.attempt,
            id: id.clone(),
            image,
            image_id,
            process: None,
            user: user.clone(),
            resources: None,
            started: None,
            end: None,
            set: SignedDuration::ZERO,
        }
    }
}

/// The names in a folder, which may not be there.
fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two runs of the container `app`, of another release.
    fn folder(root: &Path) -> Folder {
        let folder = Folder::new(root, "u1");
        for attempt in [9, 10] {
            let path = folder.run("app", attempt);
            fs::create_dir_all(State::new(&path).out()).unwrap();
            let text = format!(
                r#"{{"version": 99, "id": "id{attempt}", "user": {{"uid": 5, "gid": 5, "groups": []}},
                    "log": {{"path": "/logs/ns_web_u1/app/{attempt}.log"}}, "wings": 2}}"#
            );
            fs::write(path.join(CONTAINER), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_newest_run_is_taken_up_and_the_user_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let owner = fs::metadata(root.path()).unwrap().uid();
        let users = Users::new(owner..=owner);
        let left = Left::of(folder(root.path()), Some(&users));
        users.recall(left.user().unwrap());
        assert_eq!(users.take(), None, "its user was given away");
        let pod = left.pod().unwrap();
        let meta = &pod.metadata;
        assert_eq!(
            [&meta.namespace, &meta.name, &meta.uid].map(|part| part.as_deref().unwrap()),
            ["ns", "web", "u1"]
        );
        let record = left.record(Arc::new(pod), Timestamp::UNIX_EPOCH);
        let run = record.run("app").unwrap();
        assert_eq!((run.attempt, run.id.as_str(), record.user), (10, "id10", Some(owner)));
        assert!(run.end.is_none() && run.user.is_some());
    }

    #[test]
    fn an_owner_that_is_no_pods_is_not_taken_for_one() {
        let root = tempfile::tempdir().unwrap();
        let owner = fs::metadata(root.path()).unwrap().uid();
        let others = Users::new(owner + 1..=owner + 1);
        assert_eq!(Left::of(folder(root.path()), Some(&others)).user(), None);
        let empty = Left::of(Folder::new(root.path(), "u2"), None);
        assert!(empty.pod().is_none() && empty.runs.is_empty());
    }
}
