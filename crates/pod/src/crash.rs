//! Where a test has the agent die as by `kill -9`: between any two steps whose traces outlive it. Release builds have none of
//! this.

/// One of these places. With `NODULE_CRASH_AT=N` in its environment the agent dies at the Nth that it comes to.
#[cfg(debug_assertions)]
pub(crate) fn point() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static LEFT: LazyLock<Option<AtomicI64>> = LazyLock::new(|| {
        let at = std::env::var("NODULE_CRASH_AT").ok()?.parse().ok()?;
        Some(AtomicI64::new(at))
    });
    if LEFT.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) == 1) {
        // What it returns does not matter: it does not.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn point() {}
