//! The logs of containers, read where the sandboxes write them: no agent is needed for it, so none that dies breaks it off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use nodule_logs::{Error, Query, read};
use tokio::sync::watch;

use super::pods::{self, statuses};

/// A container of a pod: the pod's UID, and the container's name.
pub(crate) type Key = (String, String);

/// How far the containers of some pods have come: by container, its newest run and whether that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    runs: BTreeMap<Key, (u32, bool)>,
    /// UIDs of the pods that have ended.
    ended: Vec<String>,
}

/// What to show next of a container.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// This run, which has ended or goes on.
    Run(u32, bool),
    /// Nothing more will come.
    Nothing,
    Wait,
}

impl Progress {
    /// Of these pods; those of `wanted` that are not there have ended.
    pub(crate) fn of(all: &[Pod], wanted: &[String]) -> Self {
        let mut progress = Self::default();
        for uid in wanted {
            let Some(pod) = all.iter().find(|pod| pods::uid(pod) == uid) else {
                progress.ended.push(uid.clone());
                continue;
            };
            for status in statuses(pod) {
                if let Some(run) = pods::newest_run(status) {
                    let key = (uid.clone(), status.name.clone());
                    progress.runs.insert(key, (run, pods::is_running(status)));
                }
            }
            if pods::has_ended(pod) {
                progress.ended.push(uid.clone());
            }
        }
        progress
    }

    fn next(&self, key: &Key, shown: Option<u32>) -> Next {
        let ended = self.ended.contains(&key.0);
        match self.runs.get(key) {
            Some((newest, goes_on)) => {
                let next = shown.map_or(0, |shown| shown + 1);
                match next.cmp(newest) {
                    std::cmp::Ordering::Less => Next::Run(next, true),
                    std::cmp::Ordering::Equal => Next::Run(next, !goes_on || ended),
                    std::cmp::Ordering::Greater if ended => Next::Nothing,
                    std::cmp::Ordering::Greater => Next::Wait,
                }
            }
            None if ended => Next::Nothing,
            None => Next::Wait,
        }
    }

    fn is_over(&self, key: &Key, run: u32) -> bool {
        let over = |(newest, goes_on): &(u32, bool)| *newest > run || !goes_on;
        self.runs.get(key).is_some_and(over) || self.ended.contains(&key.0)
    }
}

/// The file of one run of a container: the kubelet's layout.
pub(crate) fn path(logs: &Path, pod: &Pod, container: &str, run: u32) -> PathBuf {
    let folder = format!("{}_{}_{}", pods::namespace(pod), pods::name(pod), pods::uid(pod));
    logs.join(folder).join(container).join(format!("{run}.log"))
}

/// Gives `show` all that a container writes, run after run, until its pod has ended. `first` is the first run that is
/// wanted. An error of `show` ends it.
pub(crate) async fn follow<E>(
    path: impl Fn(u32) -> PathBuf,
    key: &Key,
    first: u32,
    query: &Query,
    mut progress: watch::Receiver<Progress>,
    mut show: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut shown = first.checked_sub(1);
    loop {
        let next = progress.borrow_and_update().next(key, shown);
        match next {
            Next::Nothing => return Ok(()),
            Next::Wait => {
                if progress.changed().await.is_err() {
                    return Ok(());
                }
            }
            Next::Run(run, over) => {
                let (ends, ended) = watch::channel(over);
                let text = read(path(run), query.clone(), ended);
                let is_over = |progress: &Progress| progress.is_over(key, run);
                follow_run(text, is_over, &ends, &mut progress, &mut show).await?;
                shown = Some(run);
            }
        }
    }
}

/// Shows one run to its end, which `ends` is told of. One whose log has been removed has no text.
async fn follow_run<E>(
    text: impl Stream<Item = Result<Bytes, Error>>,
    is_over: impl Fn(&Progress) -> bool,
    ends: &watch::Sender<bool>,
    progress: &mut watch::Receiver<Progress>,
    show: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut text = std::pin::pin!(text);
    let end = |over: bool| ends.send_if_modified(|ended| std::mem::replace(ended, over) != over);
    loop {
        let told = progress.has_changed().is_ok();
        if !told {
            // Nobody tells of an end any more: this is it.
            end(true);
        }
        tokio::select! {
            piece = text.next() => match piece {
                Some(Ok(piece)) => show(&piece)?,
                Some(Err(_)) | None => return Ok(()),
            },
            changed = progress.changed(), if told => {
                end(changed.is_err() || is_over(&progress.borrow()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(run: Option<(u32, bool)>, ended: bool) -> Progress {
        let key = ("u".to_owned(), "c".to_owned());
        Progress {
            runs: run.map(|run| (key, run)).into_iter().collect(),
            ended: if ended { vec!["u".to_owned()] } else { Vec::new() },
        }
    }

    #[test]
    fn every_run_is_shown_once_and_in_its_order() {
        let key = ("u".to_owned(), "c".to_owned());
        for (run, ended, shown, next) in [
            (None, false, None, Next::Wait),
            (None, true, None, Next::Nothing),
            (Some((0, true)), false, None, Next::Run(0, false)),
            (Some((0, false)), false, None, Next::Run(0, true)),
            (Some((2, true)), false, None, Next::Run(0, true)),
            (Some((2, true)), false, Some(1), Next::Run(2, false)),
            (Some((2, false)), false, Some(2), Next::Wait),
            (Some((2, false)), true, Some(2), Next::Nothing),
            (Some((2, true)), true, Some(1), Next::Run(2, true)),
        ] {
            assert_eq!(progress(run, ended).next(&key, shown), next, "{run:?} {ended} {shown:?}");
        }
    }
}
