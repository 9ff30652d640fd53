//! A zygote, seen from the agent's side.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nodule_sandbox_proto::VERSION;
use nodule_sandbox_proto::zygote::{Order, Reply, receive, send};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// A zygote that takes orders. Dropped, it is killed; its forks live on.
pub(super) struct Zygote {
    socket: OwnedFd,
    child: Child,
}

impl Zygote {
    /// Starts `program` as a zygote; what it has to say goes to `zygote.log` in `folder`.
    pub(super) fn start(program: &Path, folder: &Path) -> Result<Self> {
        let (socket, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let log = File::create(folder.join("zygote.log"))?;
        let mut command = Command::new(program);
        command.arg("zygote").arg("--pods").arg(folder).env_clear().current_dir("/");
        command.stdin(Stdio::from(its)).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let zygote = Self { socket, child };
        let ready = receive::<Reply>(&zygote.socket)?.context("the zygote ended")?.0;
        ensure!(ready == Reply::Ready { version: VERSION }, "the zygote says {ready:?}");
        Ok(zygote)
    }

    /// Has a container's process forked: its id, and a pidfd.
    pub(super) fn fork(
        &self,
        order: &Order,
        descriptors: [BorrowedFd<'_>; 2],
    ) -> Result<(u32, OwnedFd)> {
        use std::os::fd::AsFd;
        send(self.socket.as_fd(), order, &descriptors)?;
        let (reply, mut beside) =
            receive::<Reply>(&self.socket)?.context("the zygote ended: zygote.log says why")?;
        let Reply::Forked { process } = reply else { bail!("the zygote says {reply:?}") };
        Ok((process.pid, beside.pop().context("a pidfd comes with a fork")?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
