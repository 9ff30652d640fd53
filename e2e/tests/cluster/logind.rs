//! A bus of a test's own, with what systemd-logind says and hears on it.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nodule_e2e::wait;
use tempfile::TempDir;
use zbus::object_server::SignalEmitter;

const PATH: &str = "/org/freedesktop/login1";

/// What waits for a shutdown: the end that a lock's holder does not have.
type Locks = Arc<Mutex<Vec<std::fs::File>>>;

/// dbus-daemon, ended when dropped, and the service on it.
pub(crate) struct Logind {
    daemon: Child,
    address: String,
    connection: Option<zbus::Connection>,
    locks: Locks,
    _folder: TempDir,
}

struct Manager {
    locks: Locks,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(
        &self,
        what: &str,
        _who: &str,
        _why: &str,
        mode: &str,
    ) -> zbus::fdo::Result<zbus::OwnedFd> {
        let refused = |error: std::io::Error| zbus::fdo::Error::Failed(error.to_string());
        if (what, mode) != ("shutdown", "delay") {
            return Err(zbus::fdo::Error::NotSupported(format!("{what} {mode}")));
        }
        let (reader, writer): (OwnedFd, OwnedFd) =
            rustix::pipe::pipe().map_err(|error| refused(error.into()))?;
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).push(reader.into());
        Ok(writer.into())
    }

    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> u64 {
        // An hour: nothing need be changed.
        3_600_000_000
    }

    #[zbus(signal)]
    async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

impl Logind {
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listen = format!("--address=unix:dir={}", folder.path().display());
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address", &listen])
            .stdout(Stdio::piped())
            .spawn()
            .context("start dbus-daemon (Debian: dbus-daemon)")?;
        let said = daemon.stdout.take().context("its address")?;
        let mut logind = Self {
            daemon,
            address: String::new(),
            connection: None,
            locks: Locks::default(),
            _folder: folder,
        };
        BufReader::new(said).read_line(&mut logind.address)?;
        let builder = zbus::connection::Builder::address(logind.address())
            .serve_at(PATH, Manager { locks: Arc::clone(&logind.locks) })
            .name("org.freedesktop.login1");
        logind.connection = Some(builder.build().await.context("serve on the bus")?);
        Ok(logind)
    }

    /// The bus, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub(crate) fn address(&self) -> &str {
        self.address.trim()
    }

    /// Says that the machine is about to be shut down, or that it is not any more.
    pub(crate) async fn prepare_for_shutdown(&self, start: bool) -> Result<()> {
        let connection = self.connection.as_ref().context("a connection")?;
        let emitter = SignalEmitter::new(connection, PATH)?;
        Ok(Manager::prepare_for_shutdown(&emitter, start).await?)
    }

    /// Waits until so many locks were taken in all.
    pub(crate) async fn locked(&self, times: usize) -> Result<()> {
        let taken = || self.locks.lock().unwrap_or_else(PoisonError::into_inner).len();
        wait::found("a lock", || (taken() >= times).then_some(())).await
    }

    /// Waits until the last lock was given back: its pipe ends.
    pub(crate) async fn released(&self) -> Result<()> {
        let last = || -> Result<std::fs::File> {
            let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(locks.last().context("a lock")?.try_clone()?)
        };
        let mut last = last()?;
        let read = tokio::task::spawn_blocking(move || last.read(&mut [0]));
        tokio::time::timeout(wait::PATIENCE, read)
            .await
            .context("wait for the lock's end")???;
        Ok(())
    }

    /// Whether a shutdown has to wait.
    pub(crate) fn holds(&self) -> Result<bool> {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let last = locks.last().context("a lock")?;
        let mut polled = [rustix::event::PollFd::new(last, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(rustix::event::poll(&mut polled, Some(&now))? == 0)
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        // It may have ended.
        let _killed = self.daemon.kill();
        let _reaped = self.daemon.wait();
    }
}
