//! How long nothing may come of an image. Each request is given up in time, but there are many: tries, servers, credentials,
//! and pods that wait for the same download one after the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// For how long nobody has sent anything of an image to those who pull it: one for all of them.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Heard {
    /// Who asks a server, or pauses between two requests.
    asking: usize,
    /// How long they had asked for nothing at `since`.
    silent: Duration,
    /// When a byte came or their number changed.
    since: Instant,
}

/// As long as this is kept, somebody asks: time in which nobody does is no silence.
pub(crate) struct Asking(Arc<Silence>);

impl Silence {
    pub(crate) fn new(limit: Duration) -> Self {
        let heard = Heard { asking: 0, silent: Duration::ZERO, since: Instant::now() };
        Self { limit, heard: Mutex::new(heard) }
    }

    pub(crate) fn ask(self: &Arc<Self>) -> Asking {
        self.change(|heard| heard.asking += 1);
        Asking(Arc::clone(self))
    }

    /// A byte of the image came.
    pub(crate) fn end(&self) {
        self.change(|heard| heard.silent = Duration::ZERO);
    }

    /// Until it has lasted for the limit. Who comes late waits as long as everybody.
    pub(crate) async fn lasts(&self) {
        let mut due = Instant::now() + self.limit;
        while due > Instant::now() {
            sleep_until(due).await;
            due = Instant::now() + self.rest();
        }
    }

    fn rest(&self) -> Duration {
        self.change(|heard| self.limit.saturating_sub(heard.silent))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if heard.asking > 0 {
            let more = now - heard.since;
            heard.silent += more;
        }
        heard.since = now;
        change(&mut heard)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.change(|heard| heard.asking -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn lasts(silence: &Silence, within: Duration) -> bool {
        timeout(within, silence.lasts()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_with_each_byte_and_goes_on_from_request_to_request() {
        let silence = Arc::new(Silence::new(5 * MINUTE));
        for _ in 0..9 {
            let asking = silence.ask();
            assert!(!lasts(&silence, 4 * MINUTE).await);
            silence.end();
            drop(asking);
        }
        for _ in 0..4 {
            let _asking = silence.ask();
            advance(MINUTE).await;
        }
        let _asking = silence.ask();
        let begun = Instant::now();
        silence.lasts().await;
        assert_eq!(begun.elapsed(), 5 * MINUTE, "who came late waits as long");
        assert_eq!(silence.rest(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_is_asked_does_not_count() {
        let silence = Arc::new(Silence::new(5 * MINUTE));
        let asking = (silence.ask(), silence.ask());
        advance(MINUTE).await;
        drop(asking.0);
        advance(MINUTE).await;
        drop(asking.1);
        assert!(!lasts(&silence, 60 * MINUTE).await);
        assert_eq!(silence.rest(), 3 * MINUTE);
        let _asking = silence.ask();
        assert!(!lasts(&silence, 2 * MINUTE).await);
        assert!(lasts(&silence, 5 * MINUTE).await);
    }
}
