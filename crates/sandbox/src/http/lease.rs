//! What an instance holds for the requests that it answers: their passes and their paces.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Pass;
use super::pace::Pace;

/// A request on its way to an instance.
pub(super) struct Ticket {
    pub(super) pace: Arc<Pace>,
    pub(super) pass: Pass,
}

/// One instance's requests. A pass is held for as long as the instance may work for its request: there are never more
/// instances at work than passes.
#[derive(Default)]
pub(super) struct Lease {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the instance works at.
    requests: Vec<Request>,
    /// All whose bodies may still be on their way.
    paces: Vec<Weak<Pace>>,
}

struct Request {
    pace: Arc<Pace>,
    _pass: Pass,
    /// Whether its answer has begun. What the instance still does then, most of all its body, is under the pace of the
    /// last of them.
    answered: bool,
}

impl Lease {
    /// The instance takes a request, which is answered when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, ticket: Ticket) -> Begun {
        let Ticket { pace, pass } = ticket;
        let mut state = self.lock();
        state.paces.retain(|pace| pace.strong_count() > 0);
        state.paces.push(Arc::downgrade(&pace));
        state.requests.retain(|request| !request.answered);
        state.requests.push(Request { pace: Arc::clone(&pace), _pass: pass, answered: false });
        Begun { lease: Arc::clone(self), pace }
    }

    fn answer(&self, pace: &Arc<Pace>) {
        let requests = &mut self.lock().requests;
        if requests.len() > 1 {
            requests.retain(|request| !Arc::ptr_eq(&request.pace, pace));
        } else {
            requests.iter_mut().for_each(|request| request.answered = true);
        }
    }

    /// The instance has nothing left to do.
    pub(super) fn rest(&self) {
        self.lock().requests.clear();
    }

    /// The instance ends before its time.
    pub(super) fn break_off(&self) {
        self.lock().paces.iter().filter_map(Weak::upgrade).for_each(|pace| pace.break_off());
    }

    /// When all of its requests are over.
    pub(super) fn deadline(&self) -> Instant {
        let last = self.lock().requests.iter().map(|request| request.pace.deadline()).max();
        last.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that an instance works at, until its answer has begun.
pub(super) struct Begun {
    lease: Arc<Lease>,
    pub(super) pace: Arc<Pace>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.lease.answer(&self.pace);
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::Gate;
    use super::super::pace::Limits;
    use super::*;

    async fn ticket(gate: &Gate, seconds: u64) -> Ticket {
        let pause = Duration::from_secs(seconds);
        let pace = Arc::new(Pace::new(Limits { pause, whole: pause }));
        Ticket { pass: gate.pass(&pace).await.unwrap(), pace }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_is_held_until_the_instance_rests() {
        let (gate, lease) = (Gate::new(1, 0), Arc::new(Lease::default()));
        drop(lease.begin(ticket(&gate, 9).await));
        let pace = Pace::new(Limits { pause: Duration::ZERO, whole: Duration::ZERO });
        assert!(gate.pass(&pace).await.is_err());
        assert_eq!((lease.deadline() - Instant::now()).as_secs(), 9, "its body may still come");
        lease.rest();
        assert!(gate.pass(&pace).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_requests_the_answered_give_their_passes_back() {
        let (gate, lease) = (Gate::new(2, 0), Arc::new(Lease::default()));
        let first = lease.begin(ticket(&gate, 5).await);
        let second = lease.begin(ticket(&gate, 3).await);
        assert_eq!((lease.deadline() - Instant::now()).as_secs(), 5);
        drop(first);
        assert_eq!((lease.deadline() - Instant::now()).as_secs(), 3);
        let third = lease.begin(ticket(&gate, 4).await);
        drop((second, third));
        assert_eq!(lease.lock().requests.len(), 1);
    }
}
