//! One blob from a registry to the store, verified while it streams.

use bytes::Bytes;
use tokio::time::sleep;

use crate::Inner;
use crate::digest::Digest;
use crate::error::Problem;
use crate::flight::Turn;
use crate::image::Blob;
use crate::metrics::Metrics;
use crate::pace::Meter;
use crate::partial::{self, Partial};
use crate::registry::{Body, Repository};
use crate::retry::Tries;
use crate::store::{StoreError, blocking};

/// What is collected before it is written: a write is a trip to another thread.
const PIECE: usize = 256 * 1024;

/// A blob to be downloaded.
struct Download<'d> {
    metrics: &'d Metrics,
    repository: &'d Repository<'d>,
    blob: &'d Blob,
    what: &'static str,
    turn: Turn,
}

/// Whether a digest that turns out wrong may be the fault of an earlier try.
enum Begun {
    Here,
    Before,
}

impl Inner {
    /// Makes sure that a blob is here. One caller at a time downloads a digest; the others
    /// find it there, or take over with their own credentials.
    pub(crate) async fn download(
        &self,
        repository: &Repository<'_>,
        blob: &Blob,
        what: &'static str,
    ) -> Result<(), Problem> {
        let turn = self.downloads.turn(blob.digest.hex()).await;
        if self.store.has(&blob.digest, blob.size) {
            return Ok(());
        }
        let _shown = self.under_way.begin(repository.name(), blob);
        let download = Download { metrics: &self.metrics, repository, blob, what, turn };
        let mut tries = Tries::new(&repository.retry);
        loop {
            let slot = self.pulls.acquire().await;
            match self.attempt(&download).await {
                Ok(()) => return Ok(()),
                Err(problem) => {
                    drop(slot);
                    let _asking = repository.ask();
                    sleep(tries.pause(problem)?).await;
                }
            }
        }
    }

    /// One try: goes on from what an earlier one left.
    async fn attempt(&self, download: &Download<'_>) -> Result<(), Problem> {
        let (path, size) = (self.store.partial(&download.blob.digest), download.blob.size);
        let turn = download.turn.clone();
        let partial = blocking(move || Partial::open(path, size, turn)).await?;
        let begun = if partial.len() > 0 { Begun::Before } else { Begun::Here };
        let (partial, begun) = match partial.len() == size {
            true => (partial, begun),
            false => download.stream(partial, begun).await?,
        };
        self.settle(download, partial, begun).await
    }

    /// Gives content of the right digest its place; nothing of other content is kept.
    async fn settle(
        &self,
        download: &Download<'_>,
        partial: Partial,
        begun: Begun,
    ) -> Result<(), Problem> {
        let expected = &download.blob.digest;
        let (path, got) = partial.finish();
        if got == *expected {
            let (store, to) = (self.store.clone(), self.store.blob(expected));
            return Ok(blocking(move || store.adopt(&path, &to, 0o400)).await?);
        }
        blocking(move || partial::remove(&path)).await?;
        Err(download.mismatch(&got, &begun))
    }
}

impl Download<'_> {
    /// Appends what the registry sends, and stops at the size that the manifest says.
    async fn stream(
        &self,
        mut partial: Partial,
        mut begun: Begun,
    ) -> Result<(Partial, Begun), Problem> {
        let _asking = self.repository.ask();
        let Body { offset, mut response } =
            self.repository.blob(&self.blob.digest, partial.len()).await?;
        let is_sized = response.content_length().is_some();
        if offset != partial.len() {
            partial = blocking(move || partial.restart()).await?;
            begun = Begun::Here;
        }
        let mut piece = Vec::with_capacity(PIECE);
        let mut meter = Meter::new(self.repository.pace());
        loop {
            let next = self.repository.chunk(&mut response, self.what).await;
            let next = next.and_then(|chunk| self.measured(&mut meter, chunk, &partial, &piece));
            let end = !matches!(next, Ok(Some(_)));
            if let Ok(Some(chunk)) = &next {
                piece.extend_from_slice(chunk);
                self.count(chunk);
            }
            if partial.len() + piece.len() as u64 > self.blob.size {
                self.forget(partial).await?;
                return Err(Problem::TooLong { what: self.what, size: self.blob.size });
            }
            if end || piece.len() >= PIECE {
                let full = std::mem::take(&mut piece);
                partial = blocking(move || partial.write(&full)).await?;
            }
            if end {
                return self.ended(partial, next.err(), is_sized).await.map(|all| (all, begun));
            }
        }
    }

    fn count(&self, chunk: &Bytes) {
        // What a folder has is not downloaded.
        if !self.repository.is_local() {
            self.metrics.downloaded.inc_by(chunk.len() as u64);
        }
    }

    /// A chunk, if it did not come too late. What came of a download that is too slow is kept but for the chunk.
    fn measured(
        &self,
        meter: &mut Meter<'_>,
        chunk: Option<Bytes>,
        partial: &Partial,
        piece: &[u8],
    ) -> Result<Option<Bytes>, Problem> {
        let size = chunk.as_ref().map_or(0, Bytes::len);
        let so_far = partial.len() + (piece.len() + size) as u64;
        let is_last = chunk.is_none() || so_far >= self.blob.size;
        if is_last { Ok(chunk) } else { meter.add(size, self.what).map(|()| chunk) }
    }

    /// A body that ends early is cut, unless its own length was less: then the manifest lies.
    async fn ended(
        &self,
        partial: Partial,
        problem: Option<Problem>,
        is_sized: bool,
    ) -> Result<Partial, Problem> {
        let (what, got, size) = (self.what, partial.len(), self.blob.size);
        let cut = |cause| Problem::Cut { what, got, size, cause };
        match problem {
            None if got == size => Ok(partial),
            None if is_sized => {
                self.forget(partial).await?;
                Err(Problem::TooShort { what, got, size })
            }
            None => Err(cut("the registry sent no more".to_owned())),
            Some(Problem::Broken { cause }) => Err(cut(cause)),
            Some(problem) => Err(problem),
        }
    }

    /// Nothing of bad content is kept.
    async fn forget(&self, partial: Partial) -> Result<(), StoreError> {
        let (path, _) = partial.finish();
        blocking(move || partial::remove(&path)).await
    }

    fn mismatch(&self, got: &Digest, begun: &Begun) -> Problem {
        match begun {
            Begun::Here => crate::fetch::wrong_digest(self.what, &self.blob.digest, got),
            Begun::Before => Problem::Broken {
                cause: "what an earlier try had left did not fit and was thrown away".to_owned(),
            },
        }
    }
}
