//! One at a time per key.

use std::sync::Arc;

use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

use crate::shared::Shared;

/// Gives the turn for a key to one caller after the other.
///
/// Whoever waited looks first whether the work is done. A caller that is dropped gives
/// its turn to the next, who does the work with its own means: no result is shared.
#[derive(Default)]
pub(crate) struct Flights {
    /// Turns that somebody holds or waits for.
    turns: Shared<Turns<()>>,
}

/// The right to work on one key, until dropped. Clones go to threads that outlive a
/// dropped caller: the next turn begins when the last clone is gone.
pub(crate) type Turn = Arc<OwnedMutexGuard<()>>;

impl Flights {
    pub(crate) async fn turn(&self, key: &str) -> Turn {
        Arc::new(self.turns.join(key, Turns::default).lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
        matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    }

    #[tokio::test]
    async fn a_key_has_one_holder_and_others_do_not_wait_for_it() {
        let flights = Flights::default();
        let first = flights.turn("a").await;
        let mut second = pin!(flights.turn("a"));
        assert!(!is_ready(&mut second));
        drop(flights.turn("b").await);
        let in_a_thread = first.clone();
        drop(first);
        assert!(!is_ready(&mut second));
        drop(in_a_thread);
        assert!(is_ready(&mut second));
    }
}
