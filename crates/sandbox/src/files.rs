//! The guest's files: what of the host's it sees.

use nodule_sandbox_proto::{Access, Mount};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, WasiView};

use crate::error::StartError;
use crate::jail::Stage;

/// A guest's mounts, all of them open folders by now: paths lead nowhere once the process is confined.
pub(crate) struct Files {
    opened: WasiFilesystemCtx,
}

impl Files {
    /// Opens every folder. What the guest may not change is refused by the host, not by its own manners.
    pub(crate) fn open(stage: &Stage) -> Result<Self, StartError> {
        let mut wasi = WasiCtxBuilder::new();
        // Only this guest waits for its files, so that it may as well do so here: a thread pool would cost it more.
        wasi.allow_blocking_current_thread(true);
        for Mount { host, guest, access, .. } in &stage.mounts {
            let open = |source| StartError::Preopen { guest: guest.clone(), source };
            wasi.preopened_dir(host, guest, permissions(*access)).map_err(open)?;
        }
        Ok(Self { opened: wasi.build().filesystem().clone() })
    }

    /// Gives them to an instance.
    pub(crate) fn give(&self, wasi: &mut WasiP1Ctx) {
        wasi.ctx().ctx.filesystem().clone_from(&self.opened);
    }
}

fn permissions(access: Access) -> FsPerms {
    match access {
        Access::ReadOnly => FsPerms::ReadOnly,
        Access::ReadWrite | Access::Private => FsPerms::ReadWrite,
    }
}
