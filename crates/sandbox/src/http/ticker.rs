//! The thread that interrupts guests, while there are any.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest may keep the others waiting. Shorter costs more switches between guests, longer is felt.
const TICK: Duration = Duration::from_millis(10);

/// The stack of the thread in bytes: it adds one to a number.
const STACK: usize = 64 << 10;

/// Ticks while there are [`Interest`]s, and sleeps without a wake-up when there are none.
#[derive(Clone)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    interests: Mutex<usize>,
    first: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held for as long as a guest may be at work.
pub(crate) struct Interest(Ticker);

impl Ticker {
    /// Starts the thread, which lives as long as the process.
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ticker = Self { shared: Arc::clone(&shared) };
        thread::Builder::new()
            .name("ticker".into())
            .stack_size(STACK)
            .spawn(move || tick(&shared, &engine))?;
        Ok(ticker)
    }

    pub(super) fn interest(&self) -> Interest {
        let mut interests = self.shared.lock();
        *interests += 1;
        if *interests == 1 {
            self.shared.first.notify_one();
        }
        Interest(self.clone())
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        *self.0.shared.lock() -= 1;
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    let mut interests = shared.lock();
    loop {
        let woken = if *interests == 0 {
            shared.first.wait(interests)
        } else {
            shared
                .first
                .wait_timeout(interests, TICK)
                .map(|(interests, _)| interests)
                .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0))
        };
        interests = woken.unwrap_or_else(PoisonError::into_inner);
        engine.increment_epoch();
    }
}
