//! Tasks that run for as long as the pods are looked after.

use std::collections::HashMap;

use tokio::task::{self, JoinError, JoinSet};

/// Tasks that must not end.
#[derive(Default)]
pub(crate) struct Tasks {
    running: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

/// That one has ended nevertheless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the task \"{task}\" has ended")]
    Itself { task: &'static str },
    #[error("the task \"{task}\" was broken off")]
    Broken { task: &'static str, source: JoinError },
}

impl Tasks {
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the first to end, however it does. May be dropped: nothing is lost.
    pub(crate) async fn end(&mut self) -> Ended {
        let name = |id| self.names.get(&id).copied().unwrap_or_default();
        match self.running.join_next_with_id().await {
            Some(Ok((id, ()))) => Ended::Itself { task: name(id) },
            Some(Err(source)) => Ended::Broken { task: name(source.id()), source },
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("wait", std::future::pending());
        tasks.spawn("stop", async {});
        assert_eq!(tasks.end().await.to_string(), "the task \"stop\" has ended");
        tasks.spawn("fall", async { panic!("as the test asked") });
        assert_eq!(tasks.end().await.to_string(), "the task \"fall\" was broken off");
    }
}
