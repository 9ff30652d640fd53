//! The shutdown of the machine, from the node, which hears of it, to the pods, which end, and back.

use anyhow::{Result, bail};
use nodule_node::Shutdown;
use tokio::sync::watch;

use crate::supervisor::Supervisor;

/// The ends of what is said while the machine is shut down.
pub(crate) struct Waiting {
    pub(crate) shuts: watch::Sender<bool>,
    pub(crate) shutting: watch::Receiver<bool>,
    pub(crate) problems: watch::Sender<Vec<String>>,
    pub(crate) drained: watch::Receiver<bool>,
}

impl Waiting {
    /// Starts to wait for a shutdown, if one waits for pods.
    pub(crate) fn start(self, config: Option<Shutdown>, supervisor: &mut Supervisor) {
        let Self { shuts, shutting, problems, drained } = self;
        supervisor.start("problems", tell(shutting, problems));
        supervisor.start("shutdown", async move {
            match config {
                Some(config) => nodule_node::watch_shutdown(config, shuts, drained).await,
                // It is kept by who would say so: nobody does.
                None => shuts.closed().await,
            }
            Ok(())
        });
    }
}

/// A node that is shut down is not Ready.
async fn tell(
    mut shutting: watch::Receiver<bool>,
    problems: watch::Sender<Vec<String>>,
) -> Result<()> {
    while shutting.changed().await.is_ok() {
        let shutting = *shutting.borrow_and_update();
        let told = shutting.then(|| "node is shutting down".to_owned());
        problems.send_replace(told.into_iter().collect());
    }
    bail!("nobody says any more whether the machine is shut down")
}
