//! Graceful node shutdown: systemd-logind is asked to wait, and says when it is about to shut the machine down
//! (systemd.io/INHIBITOR_LOCKS; KEP-2000).
//!
//! The lock is a descriptor. It is held from the agent's start, and closed when the pods have ended, which lets the shutdown go
//! on; logind does so by itself when its `InhibitDelayMaxSec` is over.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};
use zbus::OwnedFd;

/// How long until a bus that broke off is connected to again.
const RETRY: Duration = Duration::from_secs(5);
/// How often, and how far apart, logind's new limit is looked at after it was asked to read its configuration again.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const HANGUP: i32 = 1;

/// How a machine's shutdown is waited for.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// The address of the system's bus; none for where it always is.
    pub bus: Option<String>,
    /// How long pods may take together (`shutdownGracePeriod`).
    pub delay: Duration,
    /// Where logind is told to allow that, if it allows less: a file of its `logind.conf.d`.
    pub drop_in: PathBuf,
}

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Logind {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;
    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> zbus::Result<u64>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("speak with systemd-logind")]
    Bus(#[from] zbus::Error),
    #[error("systemd-logind does not say any more when the machine is shut down")]
    Silent,
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Says in `shutting` whether the machine is being shut down, and lets it go on once `drained` is true. Runs for as long as it is
/// polled; where there is no logind, that is told once.
pub async fn watch(
    config: Shutdown,
    shutting: watch::Sender<bool>,
    mut drained: watch::Receiver<bool>,
) {
    let mut told = false;
    loop {
        let Err(error) = follow(&config, &shutting, &mut drained, &mut told).await;
        if !std::mem::replace(&mut told, true) {
            let error = &error as &dyn std::error::Error;
            warn!(error, "a shutdown of this machine will not wait for its pods: tried again");
        }
        sleep(RETRY).await;
    }
}

async fn follow(
    config: &Shutdown,
    shutting: &watch::Sender<bool>,
    drained: &mut watch::Receiver<bool>,
    told: &mut bool,
) -> Result<std::convert::Infallible, Error> {
    let bus = connect(config).await?;
    let logind = LogindProxy::new(&bus).await?;
    allow(config, &bus, &logind).await?;
    let mut signals = logind.receive_prepare_for_shutdown().await?;
    let mut lock = Some(inhibit(&logind).await?);
    info!(seconds = config.delay.as_secs(), "a shutdown of this machine waits for its pods");
    *told = false;
    loop {
        tokio::select! {
            signal = signals.next() => {
                let start = signal.ok_or(Error::Silent)?.args()?.start;
                info!(start, "the machine is about to be shut down");
                shutting.send_replace(start);
                if !start && lock.is_none() {
                    lock = Some(inhibit(&logind).await?);
                }
            }
            () = ended(drained), if lock.is_some() => {
                info!("no pod runs any more: the shutdown goes on");
                lock = None;
            }
        }
    }
}

/// Waits until no pod runs. Never returns where nobody says so any more: then the agent ends.
async fn ended(drained: &mut watch::Receiver<bool>) {
    if drained.wait_for(|drained| *drained).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn connect(config: &Shutdown) -> Result<zbus::Connection, zbus::Error> {
    match &config.bus {
        Some(address) => zbus::connection::Builder::address(address.as_str()).build().await,
        None => zbus::Connection::system().await,
    }
}

async fn inhibit(logind: &LogindProxy<'_>) -> Result<OwnedFd, zbus::Error> {
    logind.inhibit("shutdown", "nodule", "pods are given time to end", "delay").await
}

/// Sees that logind waits for as long as pods may take.
async fn allow(
    config: &Shutdown,
    bus: &zbus::Connection,
    logind: &LogindProxy<'_>,
) -> Result<(), Error> {
    if allowed(logind).await? >= config.delay {
        return Ok(());
    }
    let seconds = config.delay.as_secs() + u64::from(config.delay.subsec_nanos() > 0);
    let text = format!(
        "# Written by nodule: shutdownGracePeriod.\n[Login]\nInhibitDelayMaxSec={seconds}\n"
    );
    write(&config.drop_in, &text)
        .map_err(|source| Error::Write { path: config.drop_in.clone(), source })?;
    SystemdProxy::new(bus).await?.kill_unit("systemd-logind.service", "main", HANGUP).await?;
    for _ in 0..LOOKS {
        if allowed(logind).await? >= config.delay {
            return Ok(());
        }
        sleep(BETWEEN_LOOKS).await;
    }
    let allowed = allowed(logind).await?;
    warn!(?allowed, wanted = ?config.delay, "a shutdown waits for less time than pods may take");
    Ok(())
}

async fn allowed(logind: &LogindProxy<'_>) -> Result<Duration, zbus::Error> {
    Ok(Duration::from_micros(logind.inhibit_delay_max().await?))
}

fn write(path: &std::path::Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}
