//! Counts what a probe finds, and says when: pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

use super::action::seconds;

/// When and how often a probe asks, and how many answers of one kind count. Where the API server has not filled in the
/// defaults, they are its own (Kubernetes API, `Probe`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    successes: u32,
    failures: u32,
}

impl Pace {
    pub(crate) fn of(probe: &Probe) -> Self {
        let count = |value: Option<i32>, default| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }

    /// How long to wait before the first question to a container that started at `started`. One that an earlier agent
    /// started is asked at some moment of its period: all of a node's at once would be a storm.
    pub(crate) fn first(
        &self,
        started: Timestamp,
        now: Timestamp,
        adopted: Option<f64>,
    ) -> Duration {
        let age = Duration::try_from(now.duration_since(started)).unwrap_or_default();
        let rest = self.delay.saturating_sub(age);
        adopted.map_or(rest, |part| rest.max(self.period.mul_f64(part.clamp(0.0, 1.0))))
    }
}

/// The last answers of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// Counts an answer; and says what the container is, once that has been heard often enough.
    pub(crate) fn count(&mut self, good: bool, pace: &Pace) -> Option<bool> {
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let threshold = if good { pace.successes } else { pace.failures };
        (self.run >= threshold).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(successes: i32, failures: i32) -> Pace {
        Pace::of(&Probe {
            success_threshold: Some(successes),
            failure_threshold: Some(failures),
            ..Probe::default()
        })
    }

    #[test]
    fn what_is_not_said_is_the_apis_default() {
        let seconds = Duration::from_secs;
        let default = Pace::of(&Probe::default());
        assert_eq!(default, pace(1, 3));
        assert_eq!(
            (default.delay, default.period, default.timeout),
            (seconds(0), seconds(10), seconds(1))
        );
    }

    #[test]
    fn an_answer_counts_when_it_was_heard_often_enough_in_a_row() {
        for (successes, failures, answers, verdicts) in [
            (1, 3, "+--+---+", "+..+..-+"),
            (2, 1, "+-++-", ".-.+-"),
            (1, 1, "+-+", "+-+"),
            (3, 3, "++-++", "....."),
        ] {
            let mut tally = Tally::default();
            let pace = pace(successes, failures);
            let said: String = answers
                .chars()
                .map(|answer| match tally.count(answer == '+', &pace) {
                    None => '.',
                    Some(true) => '+',
                    Some(false) => '-',
                })
                .collect();
            assert_eq!(said, verdicts, "{successes} {failures} {answers}");
        }
    }

    #[test]
    fn the_first_question_waits_for_the_delay_and_an_adopted_containers_for_a_part_of_the_period() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (delay, now, adopted, wait) in [
            (0, 100, None, 0),
            (5, 100, None, 5),
            (5, 103, None, 2),
            (5, 200, None, 0),
            (0, 200, Some(0.5), 5),
            (20, 101, Some(0.5), 19),
            // The clock was set back.
            (5, 50, None, 5),
        ] {
            let probe = Probe { initial_delay_seconds: Some(delay), ..Probe::default() };
            let first = Pace::of(&probe).first(at(100), at(now), adopted);
            assert_eq!(first, Duration::from_secs(wait), "{delay} {now} {adopted:?}");
        }
    }
}
