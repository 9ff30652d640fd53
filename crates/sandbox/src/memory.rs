//! The limit on a guest's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nodule_sandbox_proto::Report;

use wasmtime::{Error, ResourceLimiter, Result};

/// What one element of a table takes in this process.
const ELEMENT: usize = size_of::<usize>();

/// Stands for no limit.
const NONE: usize = usize::MAX;

/// What all instances of a container may use together.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Account>);

struct Account {
    /// The agent may change it.
    limit: AtomicUsize,
    /// Only the thread of the guests changes it.
    used: AtomicUsize,
}

impl Budget {
    /// A limit in bytes; none leaves what Wasm itself allows.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self(Arc::new(Account { limit: AtomicUsize::new(raw(limit)), used: AtomicUsize::new(0) }))
    }

    /// Sets another limit, from any thread, unless more than that is used already; and says what holds.
    pub(crate) fn set(&self, limit: Option<u64>) -> Report {
        let used = self.0.used.load(Ordering::Relaxed);
        if used <= raw(limit) {
            self.0.limit.store(raw(limit), Ordering::Relaxed);
        }
        Report::Limited { used: used as u64, memory: self.limit().map(|limit| limit as u64) }
    }

    fn limit(&self) -> Option<usize> {
        Some(self.0.limit.load(Ordering::Relaxed)).filter(|limit| *limit != NONE)
    }
}

fn raw(limit: Option<u64>) -> usize {
    limit.map_or(NONE, |limit| usize::try_from(limit).unwrap_or(NONE))
}

/// Counts the linear memories and tables of one instance against the limit.
///
/// A growth over the limit is refused as Wasm has it: the guest sees -1 and may live with that. Most do not, and trap;
/// then the container ran out of memory.
pub(crate) struct Memory {
    budget: Budget,
    /// Of what is used, what this instance does.
    own: usize,
    refused: Option<Refused>,
}

/// A growth that was refused, and after which none was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What the guest would have had, in bytes.
    pub(crate) wanted: usize,
}

impl Memory {
    /// For one more instance.
    pub(crate) fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), own: 0, refused: None }
    }

    /// Whether the guest's last wish for memory was refused.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// The limit in bytes, if there is one.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.budget.limit()
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        let Account { limit, used: all } = &*self.budget.0;
        let used = all.load(Ordering::Relaxed);
        let wanted = used.saturating_sub(current).saturating_add(desired);
        let granted = wanted <= limit.load(Ordering::Relaxed)
            && maximum.is_none_or(|maximum| desired <= maximum);
        if granted {
            all.store(wanted, Ordering::Relaxed);
            self.own = self.own.saturating_sub(current).saturating_add(desired);
            self.refused = None;
        } else {
            self.refused = Some(Refused { wanted });
        }
        granted
    }

    /// The kernel refused what was granted here. What was counted stays counted: the guest is at its end.
    fn failed(&mut self) {
        let wanted = self.budget.0.used.load(Ordering::Relaxed);
        self.refused = Some(Refused { wanted });
    }
}

impl Drop for Memory {
    /// What the instance had goes with it.
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.own, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        Ok(self.grow(current, desired, maximum))
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<()> {
        self.failed();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(ELEMENT);
        Ok(self.grow(bytes(current), bytes(desired), maximum.map(bytes)))
    }

    fn table_grow_failed(&mut self, _: Error) -> Result<()> {
        self.failed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 64 << 10;

    fn memory(pages: Option<u64>) -> Memory {
        Memory::new(&Budget::new(pages.map(|pages| pages * PAGE as u64)))
    }

    #[test]
    fn instances_share_the_limit_and_give_back() {
        let budget = Budget::new(Some(4 * PAGE as u64));
        let (mut one, mut other) = (Memory::new(&budget), Memory::new(&budget));
        assert!(one.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(!other.memory_growing(0, 2 * PAGE, None).unwrap());
        assert_eq!(other.refused(), Some(Refused { wanted: 5 * PAGE }));
        assert!(one.memory_growing(3 * PAGE, 4 * PAGE, None).unwrap());
        drop(one);
        assert!(other.memory_growing(0, 4 * PAGE, None).unwrap());
    }

    #[test]
    fn another_limit_holds_from_the_next_growth_on_unless_it_is_below_what_is_used() {
        let bytes = |pages: usize| (pages * PAGE) as u64;
        let budget = Budget::new(Some(bytes(2)));
        let mut memory = Memory::new(&budget);
        assert!(memory.memory_growing(0, 2 * PAGE, None).unwrap());
        for (limit, wanted) in [
            (Some(1), Some(bytes(2))),
            (Some(2), Some(bytes(2))),
            (None, None),
            (Some(4), Some(bytes(4))),
        ] {
            let told = budget.set(limit.map(bytes));
            assert_eq!(told, Report::Limited { used: bytes(2), memory: wanted }, "{limit:?}");
        }
        assert!(memory.memory_growing(2 * PAGE, 4 * PAGE, None).unwrap());
        assert!(!memory.memory_growing(4 * PAGE, 5 * PAGE, None).unwrap());
    }

    #[test]
    fn memories_and_tables_share_the_limit() {
        let mut memory = memory(Some(4));
        assert!(memory.memory_growing(0, 2 * PAGE, None).unwrap());
        assert!(memory.memory_growing(0, PAGE, None).unwrap());
        assert!(!memory.table_growing(0, PAGE / ELEMENT + 1, None).unwrap());
        assert!(memory.table_growing(0, PAGE / ELEMENT, None).unwrap());
        assert!(!memory.memory_growing(2 * PAGE, 3 * PAGE, None).unwrap());
        assert_eq!(memory.refused(), Some(Refused { wanted: 5 * PAGE }));
    }

    #[test]
    fn a_growth_that_is_granted_makes_up_for_one_that_was_refused() {
        let mut memory = memory(Some(2));
        assert!(!memory.memory_growing(PAGE, 9 * PAGE, None).unwrap());
        assert!(memory.memory_growing(0, PAGE, None).unwrap());
        assert_eq!(memory.refused(), None);
    }

    #[test]
    fn the_programs_own_maximum_is_not_counted_as_used() {
        let mut memory = memory(Some(4));
        assert!(!memory.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert!(memory.memory_growing(0, 4 * PAGE, None).unwrap());
    }

    #[test]
    fn without_a_limit_only_the_kernel_refuses() {
        let mut memory = memory(None);
        assert_eq!(memory.limit(), None);
        assert!(memory.memory_growing(0, 1 << 40, None).unwrap());
        memory.memory_grow_failed(Error::msg("no memory")).unwrap();
        assert_eq!(memory.refused(), Some(Refused { wanted: 1 << 40 }));
    }
}
