//! Lifecycle hooks: what a pod asks for right after a container's start and right before its end.
//!
//! `run.rs` does what a hook says, once; `start.rs` and `stop.rs` are the worker's part: when that is, and what follows.
//! A hook may be run again where nobody kept that it was done: an agent's end in the middle of one, as the kubelet's.

mod run;
mod start;
mod stop;

use std::collections::BTreeMap;

use tokio::task::AbortHandle;

pub(crate) use run::Failed;

/// When a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// When the container has started.
    PostStart,
    /// Before it is given the stop notice.
    PreStop,
}

/// The hooks of a pod's newest runs that were begun by this worker. Those of a run that has ended are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    begun: BTreeMap<(String, Moment), Progress>,
}

#[derive(Debug)]
enum Progress {
    Running(AbortHandle),
    Done,
}

impl Hooks {
    fn has_begun(&self, container: &str, moment: Moment) -> bool {
        self.begun.contains_key(&(container.to_owned(), moment))
    }

    fn is_running(&self, container: &str, moment: Moment) -> bool {
        matches!(self.begun.get(&(container.to_owned(), moment)), Some(Progress::Running(_)))
    }

    fn begin(&mut self, container: &str, moment: Moment, task: Option<AbortHandle>) {
        let progress = task.map_or(Progress::Done, Progress::Running);
        self.begun.insert((container.to_owned(), moment), progress);
    }

    /// Breaks it off if it runs, and takes it as done.
    fn finish(&mut self, container: &str, moment: Moment) {
        let done = self.begun.insert((container.to_owned(), moment), Progress::Done);
        if let Some(Progress::Running(task)) = done {
            task.abort();
        }
    }

    fn forget(&mut self, container: &str) {
        for moment in [Moment::PostStart, Moment::PreStop] {
            self.finish(container, moment);
            self.begun.remove(&(container.to_owned(), moment));
        }
    }
}
