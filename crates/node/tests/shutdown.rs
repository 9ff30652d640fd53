//! The shutdown of a machine against a real bus; the service on it says what systemd-logind says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail as a test does")]

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodule_node::{Shutdown, watch_shutdown};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zbus::object_server::SignalEmitter;

const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/org/freedesktop/login1";

/// dbus-daemon, ended when dropped.
struct Bus {
    daemon: Child,
    address: String,
    _folder: TempDir,
}

impl Bus {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("--address=unix:dir={}", folder.path().display());
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address", &listen])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("dbus-daemon (Debian: dbus-daemon): {error}"));
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned(), _folder: folder }
    }

    async fn connect(&self) -> zbus::Connection {
        zbus::connection::Builder::address(self.address.as_str()).build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The lock that is held: readable to its end when it is not any more.
type Lock = Arc<Mutex<Option<OwnedFd>>>;

struct Logind {
    lock: Lock,
    limit: Arc<Mutex<u64>>,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::OwnedFd {
        assert_eq!((what, who, mode), ("shutdown", "nodule", "delay"));
        assert!(!why.is_empty());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        *self.lock.lock().unwrap() = Some(reader);
        writer.into()
    }

    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> u64 {
        *self.limit.lock().unwrap()
    }

    #[zbus(signal)]
    async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

/// Reads logind's configuration again, as a hangup has it.
struct Systemd {
    drop_in: PathBuf,
    limit: Arc<Mutex<u64>>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) {
        assert_eq!((name, whom, signal), ("systemd-logind.service", "main", 1));
        let text = std::fs::read_to_string(&self.drop_in).unwrap();
        let seconds = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec="));
        *self.limit.lock().unwrap() = seconds.unwrap().parse::<u64>().unwrap() * 1_000_000;
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not seen: {what}"));
}

/// Whether the lock's other end is closed.
fn is_free(lock: &Lock) -> bool {
    let lock = lock.lock().unwrap();
    lock.as_ref().is_some_and(|reader| {
        let mut polled = [rustix::event::PollFd::new(reader, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&now)).unwrap() == 1
    })
}

#[tokio::test]
async fn a_shutdown_waits_until_no_pod_runs_and_may_be_called_off() {
    let bus = Bus::start();
    let folder = tempfile::tempdir().unwrap();
    let drop_in = folder.path().join("logind.conf.d/99-nodule.conf");
    let (lock, limit) = (Lock::default(), Arc::new(Mutex::new(5_000_000)));
    let service = bus.connect().await;
    let logind = Logind { lock: Arc::clone(&lock), limit: Arc::clone(&limit) };
    let systemd = Systemd { drop_in: drop_in.clone(), limit: Arc::clone(&limit) };
    service.object_server().at(PATH, logind).await.unwrap();
    service.object_server().at("/org/freedesktop/systemd1", systemd).await.unwrap();
    for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
        service.request_name(name).await.unwrap();
    }
    let say = async |start| {
        let emitter = SignalEmitter::new(&service, PATH).unwrap();
        Logind::prepare_for_shutdown(&emitter, start).await.unwrap();
    };

    let (drained, is_drained) = watch::channel(false);
    let (shutting, mut seen) = watch::channel(false);
    let delay = Duration::from_millis(89_500);
    let config = Shutdown { bus: Some(bus.address.clone()), delay, drop_in: drop_in.clone() };
    let mut tasks = JoinSet::new();
    tasks.spawn(watch_shutdown(config, shutting, is_drained));

    until("a lock", || lock.lock().unwrap().is_some()).await;
    assert_eq!(*limit.lock().unwrap(), 90_000_000);
    say(true).await;
    timeout(PATIENCE, seen.wait_for(|shutting| *shutting)).await.unwrap().unwrap();
    assert!(!is_free(&lock), "the pods are not waited for");
    drained.send_replace(true);
    until("no lock", || is_free(&lock)).await;

    drained.send_replace(false);
    say(false).await;
    timeout(PATIENCE, seen.wait_for(|shutting| !*shutting)).await.unwrap().unwrap();
    until("a new lock", || !is_free(&lock)).await;
    tasks.shutdown().await;
    until("no lock", || is_free(&lock)).await;
}
