//! Removes images that nobody uses: when the disk is full, or when they are old (Kubernetes documentation, "Garbage
//! Collection: Container image lifecycle").
//!
//! First the names go, then the record, then what no record refers to any more: blobs, trees, compiled code. Cut at any
//! point, what is left is either whole or found by the next collection.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::Inner;
use crate::digest::Digest;
use crate::image::Record;
use crate::store::{StoreError, blocking};

/// When images are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collect {
    /// Percent of the disk that may be used before images are removed (`imageGCHighThresholdPercent`).
    pub high: u8,
    /// Percent of the disk that they are removed down to (`imageGCLowThresholdPercent`).
    pub low: u8,
    /// An image that was used within this time stays (`imageMinimumGCAge`).
    pub youngest: Duration,
    /// An image that was not used for this time goes in any case (`imageMaximumGCAge`), counted from the agent's start;
    /// none keeps them.
    pub oldest: Option<Duration>,
}

impl Default for Collect {
    /// The kubelet's.
    fn default() -> Self {
        Self { high: 85, low: 80, youngest: Duration::from_mins(2), oldest: None }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images that were removed because they were old.
    pub aged: usize,
    /// Images that were removed to make room.
    pub spaced: usize,
    /// Bytes that should have become free and did not: all that is left is in use or too young.
    pub lacking: u64,
}

/// How full the disk is that images are on, in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    capacity: u64,
    available: u64,
}

/// When images were last used, as far as this agent knows; those of before were used when it began.
#[derive(Default)]
pub(crate) struct Uses(Mutex<HashMap<Digest, Timestamp>>);

impl Uses {
    pub(crate) fn note(&self, image: &Digest) {
        self.uses().insert(image.clone(), Timestamp::now());
    }

    /// When an image was used; what is asked for the first time is used now.
    fn of(&self, image: &Digest, now: Timestamp) -> Timestamp {
        *self.uses().entry(image.clone()).or_insert(now)
    }

    fn forget(&self, image: &Digest) {
        self.uses().remove(image);
    }

    fn uses(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| StoreError::on("measure the disk of", path)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { capacity: bytes(stat.f_blocks), available: bytes(stat.f_bavail) })
    }

    /// What is to become free. The percentage is the kubelet's: of what is not available, rounded up.
    fn excess(self, collect: &Collect) -> u64 {
        let percent = |part: u64| u128::from(part) * 100 / u128::from(self.capacity.max(1));
        if 100_u128.saturating_sub(percent(self.available)) < u128::from(collect.high) {
            return 0;
        }
        let free = u128::from(self.capacity) * u128::from(100 - collect.low.min(100)) / 100;
        u64::try_from(free).unwrap_or(u64::MAX).saturating_sub(self.available)
    }
}

impl Inner {
    /// Removes what `collect` says, never of images in `used` (`…@sha256:…`) nor of those that somebody has in hand.
    pub(crate) async fn collect(
        self: Arc<Self>,
        collect: Collect,
        used: BTreeSet<String>,
    ) -> Result<Collected, StoreError> {
        blocking(move || self.collect_now(&collect, &used)).await
    }

    fn collect_now(
        &self,
        collect: &Collect,
        used: &BTreeSet<String>,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let now = Timestamp::now();
        let unused = self.unused(used, now);
        let since =
            |at: &Timestamp| Duration::try_from(now.duration_since(*at)).unwrap_or_default();
        let (old, rest): (Vec<_>, Vec<_>) = unused
            .into_iter()
            .partition(|(at, _)| collect.oldest.is_some_and(|oldest| since(at) > oldest));
        for (_, record) in &old {
            collected.aged += self.collected("age", self.drop_image(record)?);
        }
        self.sweep()?;
        for (_, record) in rest.iter().filter(|(at, _)| since(at) >= collect.youngest) {
            if Disk::of(self.store.root())?.excess(collect) == 0 {
                return Ok(collected);
            }
            collected.spaced += self.collected("space", self.drop_image(record)?);
            self.sweep()?;
        }
        collected.lacking = Disk::of(self.store.root())?.excess(collect);
        Ok(collected)
    }

    /// Counts an image that is gone.
    fn collected(&self, reason: &str, is_gone: bool) -> usize {
        let count = usize::from(is_gone);
        self.metrics.collected.with_label_values(&[reason]).inc_by(count as u64);
        count
    }

    /// Images that no pod uses, those first that were not used for the longest time.
    fn unused(&self, used: &BTreeSet<String>, now: Timestamp) -> Vec<(Timestamp, Record)> {
        let used: BTreeSet<_> =
            used.iter().map(|id| id.rsplit('@').next().unwrap_or_default()).collect();
        let mut unused = Vec::new();
        for record in self.store.records() {
            let digest = record.digest.to_string();
            if used.contains(digest.as_str()) {
                self.uses.note(&record.digest);
            } else {
                unused.push((self.uses.of(&record.digest, now), record));
            }
        }
        unused.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.digest.cmp(&y.digest)));
        unused
    }

    /// Removes an image's names and its record. False if somebody has it in hand.
    pub(crate) fn drop_image(&self, record: &Record) -> Result<bool, StoreError> {
        let path = self.store.record_path(&record.digest);
        let operation = self.metrics.operation("remove_image");
        let removed = self.holds.remove(&path, None, || self.store.remove_record(&record.digest));
        operation.end(removed.transpose())?;
        let is_gone = !path.exists();
        if is_gone {
            self.uses.forget(&record.digest);
            tracing::info!(digest = %record.digest, "image removed");
        }
        Ok(is_gone)
    }

    /// Removes what no image refers to. What has new references meanwhile is left to the next time.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let seen = self.holds.seen();
        let referred = self.store.referred();
        for path in self.store.content() {
            let removed = match referred.contains(&path) {
                true => None,
                false => self.holds.remove(&path, Some(seen), || self.store.discard(&path)),
            };
            removed.transpose()?;
        }
        for image in self.store.proven() {
            // Who pulls an image holds its record's place before there are proofs.
            let place = self.store.record_path(&image);
            self.holds.remove(&place, None, || self.store.forget(&image)).transpose()?;
        }
        self.metrics.count_proofs(&self.store);
        self.store.sweep_partials();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_down_to_the_low_threshold_once_the_high_one_is_reached() {
        let excess = |available, high, low| {
            let collect = Collect { high, low, ..Collect::default() };
            Disk { capacity: 1000, available }.excess(&collect)
        };
        assert_eq!(excess(1000, 85, 80), 0);
        assert_eq!(excess(151, 85, 80), 49, "84.9 percent counts as 85");
        assert_eq!(excess(160, 85, 80), 0);
        assert_eq!(excess(150, 85, 80), 50);
        assert_eq!(excess(0, 85, 80), 200);
        assert_eq!(excess(0, 100, 80), 200);
        assert_eq!(excess(10, 100, 80), 0);
        assert_eq!(excess(999, 0, 0), 1);
        assert_eq!(Disk { capacity: 0, available: 0 }.excess(&Collect::default()), 0);
    }
}
