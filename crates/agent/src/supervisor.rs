use std::{future::Future, time::Duration};

use anyhow::{Context, Result, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Tasks that were told to end are not waited for any longer. Pods do not need them.
const PATIENCE: Duration = Duration::from_millis(800);

/// The agent's long-lived tasks. None of them is meant to end, so the first one that does ends the agent.
pub(crate) struct Supervisor {
    tasks: JoinSet<(&'static str, Result<()>)>,
    stop: CancellationToken,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Starts a task that is dropped when the agent stops.
    pub(crate) fn start(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        let run = async move { stop.run_until_cancelled(task).await.unwrap_or(Ok(())) };
        self.tasks.spawn(async move { (name, run.await) });
    }

    /// Starts a task that ends by itself when the token is cancelled.
    pub(crate) fn serve<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stop.clone());
        self.tasks.spawn(async move {
            task.await;
            (name, Ok(()))
        });
    }

    /// Until a signal asks for the end, or a task ends.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = self.ended() => return Err(ended),
        }
        info!("stopping; pods run on");
        self.stop.cancel();
        if timeout(PATIENCE, async { while self.tasks.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            debug!(tasks = self.tasks.len(), "tasks are dropped that did not end in time");
        }
        Ok(())
    }

    /// The error of the first task that ends. Never returns while all run.
    async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("task {name} ended"),
            Some(Ok((name, Err(error)))) => error.context(format!("task {name} ended")),
            Some(Err(error)) => anyhow!(error).context("a task ended"),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn forever() -> Result<()> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn the_first_task_that_ends_is_the_error() {
        let mut supervisor = Supervisor::new();
        supervisor.start("stays", forever());
        supervisor.start("goes", async { Err(anyhow!("no more")) });
        let error = supervisor.run().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "task goes ended: no more");
    }

    #[tokio::test]
    async fn a_task_that_ends_without_error_is_one_too() {
        let mut supervisor = Supervisor::new();
        supervisor.start("stays", forever());
        supervisor.serve("goes", |_| async {});
        assert_eq!(supervisor.run().await.unwrap_err().to_string(), "task goes ended");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_one_too() {
        let mut supervisor = Supervisor::new();
        supervisor.start("panics", async { panic!("told to") });
        assert_eq!(supervisor.run().await.unwrap_err().to_string(), "a task ended");
    }
}
