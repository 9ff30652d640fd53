//! Children that nobody waits for.
//!
//! The forks of a zygote that has died become this agent's children. Who has a hold of one waits for it; the others, one
//! that died before it could say who it is, say, would stay in the process table for as long as the agent runs.

use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::debug;

/// How often they are looked for. All who wait for a child of theirs have done so long before they are looked for twice.
const PERIOD: Duration = Duration::from_secs(10);
/// How often one is seen before it is taken for an orphan.
const SIGHTINGS: u32 = 3;

/// The orphans of this process.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// There may be some from now on.
    coming: Notify,
}

impl Orphans {
    /// A zygote has died.
    pub(crate) fn may_come(&self) {
        self.coming.notify_one();
    }

    /// Waits for those that nobody else waits for, for ever.
    pub(crate) async fn bury(&self) {
        self.coming.notified().await;
        let mut seen = Sightings::default();
        loop {
            sleep(PERIOD).await;
            while let Some(orphan) = ended().filter(|child| seen.often_enough(*child)) {
                debug!(%orphan, "buried a child that nobody waits for");
                let _ = waitid(Id::Pid(orphan), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            }
        }
    }
}

/// The child that has ended first and was not waited for: it stays so.
fn ended() -> Option<Pid> {
    let options = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, options).ok().and_then(|status| status.pid())
}

/// How often in a row the same child was seen.
#[derive(Debug, Default)]
struct Sightings {
    child: Option<Pid>,
    times: u32,
}

impl Sightings {
    fn often_enough(&mut self, child: Pid) -> bool {
        if self.child != Some(child) {
            *self = Self { child: Some(child), times: 0 };
        }
        self.times += 1;
        self.times >= SIGHTINGS
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_that_nobody_waits_for_is_waited_for_in_the_end() {
        let probe = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "orphans::tests::with_an_orphan", "--ignored"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&probe.stdout).into_owned();
        assert!(probe.status.success() && told.contains("1 passed"), "{told}");
    }

    /// It would bury the children of other tests.
    #[tokio::test(start_paused = true)]
    #[ignore = "a probe: the test above runs it in a process of its own"]
    async fn with_an_orphan() {
        let ended: Vec<_> = (0..3).map(|_| Command::new("true").spawn().unwrap().id()).collect();
        let mut alive = Command::new("sleep").arg("1000000").spawn().unwrap();
        let is_there = |pid: &u32| std::fs::exists(format!("/proc/{pid}")).unwrap();
        let orphans = Orphans::default();
        orphans.may_come();
        tokio::select! {
            () = orphans.bury() => {}
            () = async { while ended.iter().any(is_there) { sleep(PERIOD).await } } => {}
        }
        assert!(is_there(&alive.id()));
        alive.kill().unwrap();
        alive.wait().unwrap();
    }
}
