//! What becomes of times when the machine's clock is set.
//!
//! A pod's times are those of the clock, as all that look at them know no other, and they outlive the agent. What is counted from
//! one of them (a back-off, a grace period, a deadline) is counted in real time: where the clock was set since, the time that is
//! counted from moves with it. What was told of a pod stays as it was told.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodule_sandbox_proto::Boot;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::record::{Record, Stop};
use crate::worker::Worker;

/// Less is no setting: reading two clocks takes time, too.
const LEAST: SignedDuration = SignedDuration::from_secs(1);
/// The two clocks are read again when there was more between them: this process did not run.
const APART: Duration = Duration::from_millis(100);
const TRIES: u32 = 5;

/// How the clock was set when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clock {
    /// Which start of the machine this is of; none where nothing says.
    boot: Option<Boot>,
    /// When that was, by the clock: this changes only when the clock is set, and not with sleep or with a clock that is slowed
    /// or sped up to come right (`CLOCK_BOOTTIME`, clock_gettime(2)).
    began: Timestamp,
}

impl Clock {
    /// The clock as it is now.
    pub(crate) fn read() -> Self {
        let mut began = Timestamp::now();
        for _ in 0..TRIES {
            let before = since_boot();
            let now = Timestamp::now();
            began = now.checked_sub(before).unwrap_or(now);
            if since_boot().saturating_sub(before) < APART {
                break;
            }
        }
        Self { boot: Boot::this(), began }
    }

    /// By how much it was set since it was like `then`; nothing where that was another start of the machine.
    fn set_since(&self, then: &Self) -> SignedDuration {
        let by = self.began.duration_since(then.began);
        let counts = self.boot.is_some() && self.boot == then.boot && by.abs() >= LEAST;
        if counts { by } else { SignedDuration::ZERO }
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// `time`, on a clock that was set by so much since.
pub(crate) fn moved(time: Timestamp, by: SignedDuration) -> Timestamp {
    let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(by).unwrap_or(end)
}

impl Worker {
    /// Sees whether the clock was set since the last turn, of this agent or of one before; and counts on from where it was.
    pub(crate) fn keep_time(&mut self, clock: Clock) {
        let by = self.record.keep_time(clock);
        if by.is_zero() {
            return;
        }
        info!(?by, "the clock was set: what was counted goes on");
        self.pulls.move_by(by);
        self.pictures.pulls.move_by(by);
        self.told.values_mut().for_each(|told| *told = moved(*told, by));
        self.probes.move_by(by);
        self.applying.move_by(by);
        self.volumes.move_by(by);
        self.save();
    }
}

impl Record {
    /// Moves all that is counted from with the clock. By how much.
    fn keep_time(&mut self, clock: Clock) -> SignedDuration {
        let by = self.clock.map_or(SignedDuration::ZERO, |then| clock.set_since(&then));
        let same = self.clock.is_some_and(|then| then.boot == clock.boot);
        // What is not counted as set is not lost: it may be the first part of more.
        if !same || !by.is_zero() {
            self.clock = Some(clock);
        }
        if !by.is_zero() {
            self.move_by(by);
        }
        by
    }

    fn move_by(&mut self, by: SignedDuration) {
        self.set = add(self.set, by);
        self.stop = self.stop.map(|stop| stop.moved(by));
        for history in self.containers.values_mut() {
            if let Some(run) = &mut history.run {
                run.set = add(run.set, by);
            }
            if let Some(backoff) = &mut history.backoff {
                backoff.since = moved(backoff.since, by);
            }
            let halt = history.health.as_mut().and_then(|health| health.halt.as_mut());
            if let Some(halt) = halt {
                halt.stop = halt.stop.moved(by);
            }
        }
    }
}

impl Stop {
    fn moved(self, by: SignedDuration) -> Self {
        Self { since: moved(self.since, by), ..self }
    }
}

fn add(one: SignedDuration, other: SignedDuration) -> SignedDuration {
    one.saturating_add(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::ending::kill_at;
    use crate::order::Role;
    use crate::restart::{Backoff, LONGEST, Next};
    use crate::run::Due;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn clock(boot: u32, began: i64) -> Clock {
        Clock { boot: format!("{boot:032}").parse().ok(), began: at(began) }
    }

    fn pod() -> Arc<Pod> {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// Started at 100_000 of a clock that was not set, ran from 100_010 on.
    fn record() -> Record {
        let mut record = Record::new(pod(), at(100_000));
        record.keep_time(clock(1, 0));
        let backoff = Some(Backoff { seconds: 40, since: at(99_900), of: None });
        record.begin(&app(), "ab".repeat(32), String::new(), backoff);
        record.started("app", Some(at(100_010)));
        record
    }

    fn app() -> Container {
        Container { name: "app".to_owned(), ..Container::default() }
    }

    fn close(record: &mut Record, second: i64) {
        let finished_at = Some(Time(at(second)));
        record.close(
            "app",
            ContainerStateTerminated { finished_at, exit_code: 1, ..Default::default() },
        );
    }

    fn due(record: &Record, second: i64) -> Next {
        match record.due(Role::Regular, &app(), at(second), LONGEST) {
            Due::Again(_, next) => next,
            Due::First(_) | Due::Never => panic!("it runs again"),
        }
    }

    #[test]
    fn a_back_off_is_neither_lost_nor_longer_when_the_clock_is_set_in_it() {
        for set in [HOUR, -HOUR, -20 * HOUR] {
            let mut record = record();
            close(&mut record, 100_020);
            let told = record.run("app").unwrap().end.clone();
            record.keep_time(clock(1, set));
            let wait = Duration::from_secs(40);
            assert_eq!(due(&record, 100_059 + set), Next::At(at(100_060 + set), wait), "{set}");
            assert!(matches!(due(&record, 100_060 + set), Next::Now(_)), "{set}");
            assert_eq!(record.run("app").unwrap().end, told, "what was told stays");
            // And back again.
            record.keep_time(clock(1, 0));
            assert_eq!(due(&record, 100_059), Next::At(at(100_060), wait), "{set}");
        }
    }

    #[test]
    fn a_clock_that_is_set_while_a_container_runs_does_not_make_its_run_longer() {
        for set in [HOUR, -HOUR] {
            let mut record = record();
            record.keep_time(clock(1, set));
            close(&mut record, 100_020 + set);
            let wait = Duration::from_secs(40);
            assert_eq!(due(&record, 100_021 + set), Next::At(at(100_060 + set), wait), "{set}");
        }
        // It was well-behaved for as long as is asked.
        let mut record = record();
        record.keep_time(clock(1, -HOUR));
        close(&mut record, 100_600 - HOUR);
        assert!(matches!(due(&record, 100_600 - HOUR), Next::Now(Backoff { seconds: 10, .. })));
    }

    #[test]
    fn a_grace_period_and_a_deadline_move_with_the_clock() {
        for set in [HOUR, -HOUR] {
            let mut record = record();
            record.stop = Some(Stop { since: at(100_030), grace: 30 });
            record.keep_time(clock(1, set));
            let stop = record.stop.unwrap();
            assert_eq!(kill_at(stop, moved(at(100_030), record.set)), at(100_060 + set), "{set}");
            assert_eq!(moved(record.start_time, record.set), at(100_000 + set), "{set}");
            assert_eq!(record.start_time, at(100_000), "what was told stays");
        }
    }

    #[test]
    fn another_start_of_the_machine_says_nothing_and_small_steps_add_up() {
        let mut record = record();
        assert!(record.keep_time(clock(2, HOUR)).is_zero());
        assert_eq!(record.clock, Some(clock(2, HOUR)), "it is counted from now on");
        let nearly = |millis| {
            let began = Timestamp::from_millisecond(HOUR * 1000 + millis).unwrap();
            Clock { began, ..clock(2, 0) }
        };
        assert!(record.keep_time(nearly(600)).is_zero());
        assert_eq!(record.keep_time(nearly(1200)), SignedDuration::from_millis(1200));
        assert_eq!(record.set, SignedDuration::from_millis(1200));
        let text = serde_json::to_string(&record).unwrap();
        let read: Record = serde_json::from_str(&text).unwrap();
        assert_eq!((read.clock, read.set), (record.clock, record.set));
    }

    #[test]
    fn the_clock_is_not_set_while_nobody_sets_it() {
        let (one, other) = (Clock::read(), Clock::read());
        assert!(one.boot.is_some());
        assert!(other.set_since(&one).is_zero());
    }
}
