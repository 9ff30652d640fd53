//! Static pods from a folder, or from one file (the kubelet's `staticPodPath`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::changes::Changes;
use crate::document::{MOST, read};
use crate::fixed::{Origin, static_pod};
use crate::set::Set;

/// The static pods of a folder. Files whose name begins with a dot, and folders in it, are left out.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    node: String,
    period: Duration,
}

impl Folder {
    /// The folder or file `path`, for the pods of `node`: looked at when the system tells of a change, and every `period`
    /// (the kubelet's `fileCheckFrequency`) in case that it does not.
    pub fn new(path: PathBuf, node: &str, period: Duration) -> Self {
        Self { path, node: node.to_owned(), period }
    }

    /// Tells what there is, at once and after each change. Never ends.
    pub async fn watch(self, sets: watch::Sender<Option<Set>>) {
        let mut changes = Changes::default();
        loop {
            changes.follow(&self.path);
            let folder = self.clone();
            let last = sets.borrow().clone();
            // A disk may hold it up.
            let looked = tokio::task::spawn_blocking(move || folder.look(last.as_ref())).await;
            if let Ok(set) = looked {
                sets.send_if_modified(|known| {
                    let news = known.as_ref() != Some(&set);
                    *known = Some(set);
                    news
                });
            }
            changes.next(self.period).await;
        }
    }

    /// All pods of the folder now. Those that were there before are the same objects, with the time when they were seen.
    fn look(&self, last: Option<&Set>) -> Set {
        let files = match files(&self.path) {
            Ok(files) => files,
            // As for the kubelet: no folder, no pods.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return self.unreadable(last, &error),
        };
        let mut set = Set::default();
        for file in files {
            let name = file.display().to_string();
            match self.pods(&file, &name) {
                Ok(pods) => pods.into_iter().for_each(|pod| add(&mut set, &name, pod)),
                Err(trouble) => _ = set.troubles.insert(name, trouble),
            }
        }
        for pod in &mut set.pods {
            let known = last.iter().flat_map(|last| &last.pods);
            if let Some(known) =
                known.into_iter().find(|known| known.metadata.uid == pod.metadata.uid)
            {
                pod.clone_from(known);
            }
        }
        set
    }

    fn unreadable(&self, last: Option<&Set>, error: &io::Error) -> Set {
        let mut set = last.cloned().unwrap_or_default();
        let path = self.path.display();
        set.troubles = BTreeMap::from([(path.to_string(), format!("read {path}: {error}"))]);
        for pod in &set.pods {
            let manifest = pod.metadata.annotations.iter().flatten();
            let manifest =
                manifest.filter(|(key, _)| *key == crate::MANIFEST).map(|(_, file)| file);
            set.troubles
                .extend(manifest.map(|file| (file.clone(), format!("read {path}: {error}"))));
        }
        set
    }

    fn pods(&self, file: &Path, name: &str) -> Result<Vec<Pod>, String> {
        let text = text(file).map_err(|error| format!("read {name}: {error}"))?;
        let documents = read(name, &text).map_err(|error| error.to_string())?;
        let pods = documents.iter().map(|document| static_pod(document, &self.node, Origin::File));
        pods.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }
}

/// Of two pods of one name the first counts: files come in the order of their names.
fn add(set: &mut Set, file: &str, pod: Pod) {
    let (meta, known) = (&pod.metadata, &set.pods);
    let same = |other: &&Pod| {
        other.metadata.name == meta.name && other.metadata.namespace == meta.namespace
    };
    if let Some(other) = known.iter().find(same) {
        let other = other.metadata.annotations.as_ref().and_then(|all| all.get(crate::MANIFEST));
        let trouble = format!(
            "{file}: pod \"{}\" is in {} already: give it another name",
            meta.name.as_deref().unwrap_or_default(),
            other.map(String::as_str).unwrap_or_default(),
        );
        set.troubles.insert(file.to_owned(), trouble);
        return;
    }
    set.pods.push(pod);
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(path)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Follows links, as people keep manifests elsewhere.
        if !hidden && fs::metadata(entry.path()).is_ok_and(|entry| !entry.is_dir()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a regular file; a pipe would hold the reader up.
fn text(file: &Path) -> io::Result<String> {
    let meta = fs::metadata(file)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    fs::File::open(file)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other(format!("a manifest has at most {} MiB", MOST >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn pod(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
        )
    }

    fn names(set: &Set) -> Vec<&str> {
        set.pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    async fn seen(sets: &mut watch::Receiver<Option<Set>>, holds: impl Fn(&Set) -> bool) -> Set {
        let found = sets.wait_for(|set| set.as_ref().is_some_and(&holds));
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .unwrap()
            .unwrap()
            .clone()
            .unwrap()
    }

    #[tokio::test]
    async fn what_appears_changes_and_goes_in_a_folder_is_told_without_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut sets) = watch::channel(None);
        let mut tasks = JoinSet::new();
        // Looks of its own come after a day: what is told before, the system has told.
        tasks.spawn(Folder::new(folder.path().to_owned(), "n1", DAY).watch(sender));
        seen(&mut sets, |set| set.pods.is_empty()).await;
        let file = folder.path().join("a.yaml");
        fs::write(&file, pod("a")).unwrap();
        let first = seen(&mut sets, |set| names(set) == ["a-n1"]).await;
        fs::write(folder.path().join("b.yaml"), pod("b")).unwrap();
        let both = seen(&mut sets, |set| names(set) == ["a-n1", "b-n1"]).await;
        assert_eq!(first.pods[0], both.pods[0]);
        fs::write(&file, pod("a").replace("image: i", "image: j")).unwrap();
        seen(&mut sets, |set| set.pods[0].metadata.uid != first.pods[0].metadata.uid).await;
        fs::remove_file(&file).unwrap();
        seen(&mut sets, |set| names(set) == ["b-n1"]).await;
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_found_by_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later");
        let (sender, mut sets) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(Folder::new(path.clone(), "n1", Duration::from_millis(20)).watch(sender));
        seen(&mut sets, |set| set.pods.is_empty()).await;
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), pod("a")).unwrap();
        seen(&mut sets, |set| names(set) == ["a-n1"]).await;
    }

    #[test]
    fn a_file_that_is_wrong_is_named_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.yaml", &pod("a"));
        write("b.yaml", &pod("b").replace("image: i", "image: [i]"));
        write("c.yaml", &pod("a"));
        write("d.yaml", "a: [");
        write(".hidden", "a: [");
        fs::create_dir(folder.path().join("e")).unwrap();
        let set = Folder::new(folder.path().to_owned(), "n1", DAY).look(None);
        assert_eq!(names(&set), ["a-n1"]);
        let troubles: Vec<_> = set
            .troubles
            .iter()
            .map(|(file, trouble)| (file.rsplit('/').next().unwrap(), trouble.as_str()))
            .collect();
        let [(b, field), (c, twice), (d, _)] = troubles.as_slice() else { panic!("{troubles:?}") };
        assert_eq!((*b, *c, *d), ("b.yaml", "c.yaml", "d.yaml"));
        assert!(
            field.contains("b.yaml, document 1, field \"spec.containers[0].image\""),
            "{field}"
        );
        assert!(twice.contains("a.yaml already"), "{twice}");
    }

    #[test]
    fn one_file_is_a_place_too_and_a_pipe_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, pod("a")).unwrap();
        assert_eq!(names(&Folder::new(file, "n1", DAY).look(None)), ["a-n1"]);
        let set = Folder::new("/dev".into(), "n1", DAY).look(None);
        assert!(set.troubles["/dev/null"].contains("no regular file"), "{:?}", set.troubles);
    }
}
