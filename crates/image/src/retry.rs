//! When a request is made again.

use std::time::Duration;

use crate::error::Problem;

/// How often a request is tried and how long is waited between the tries.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Tries in all, the first included.
    pub tries: u32,
    /// The longest pause before the second try; it doubles with each.
    pub first: Duration,
    /// No pause of our own is longer.
    pub longest: Duration,
    /// No pause that a registry asks for (`Retry-After`) is longer.
    pub longest_asked: Duration,
}

impl Default for Retry {
    /// Five tries within about a minute; the pod's own back-off goes on from there.
    fn default() -> Self {
        Self {
            tries: 5,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            longest_asked: Duration::from_secs(60),
        }
    }
}

/// The tries of one request.
pub(crate) struct Tries<'r> {
    retry: &'r Retry,
    made: u32,
}

impl<'r> Tries<'r> {
    pub(crate) fn new(retry: &'r Retry) -> Self {
        Self { retry, made: 0 }
    }

    /// How long to wait before the next try, or the problem itself if there is none.
    pub(crate) fn pause(&mut self, problem: Problem) -> Result<Duration, Problem> {
        self.made += 1;
        if !problem.may_pass() || self.made >= self.retry.tries {
            return Err(problem);
        }
        let asked = if let Problem::Busy { after, .. } = problem.itself() { *after } else { None };
        let pause = pause(self.retry, self.made, asked, rand::random());
        tracing::debug!(%problem, ?pause, "will be tried again");
        Ok(pause)
    }
}

/// The pause after the `made`th try. `chance`, from 0 to 1, keeps nodes that failed
/// together from coming back together.
fn pause(retry: &Retry, made: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = retry.first.saturating_mul(2_u32.saturating_pow(made.saturating_sub(1)));
    let own = doubled.min(retry.longest).mul_f64(0.5 + chance / 2.0);
    asked.map_or(own, |asked| asked.min(retry.longest_asked).max(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let retry = Retry::default();
        let millis = |made, chance| pause(&retry, made, None, chance).as_millis();
        assert_eq!([millis(1, 1.0), millis(2, 1.0), millis(3, 1.0)], [500, 1000, 2000]);
        assert_eq!([millis(1, 0.0), millis(20, 1.0), millis(99, 0.0)], [250, 30_000, 15_000]);
    }

    #[test]
    fn what_the_registry_asks_for_is_waited_within_bounds() {
        let retry = Retry::default();
        let seconds = |asked| pause(&retry, 1, Some(Duration::from_secs(asked)), 1.0).as_secs_f64();
        assert_eq!([seconds(0), seconds(7), seconds(3600)], [0.5, 7.0, 60.0]);
    }

    #[test]
    fn a_token_service_is_waited_for_as_a_registry_is() {
        let none = Duration::ZERO;
        let retry = Retry { first: none, ..Retry::default() };
        let after = Some(Duration::from_secs(7));
        let busy = Problem::Busy { answer: String::new(), after };
        let problem = Problem::TokenService { host: String::new(), problem: Box::new(busy) };
        assert_eq!(Tries::new(&retry).pause(problem).unwrap(), Duration::from_secs(7));
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let retry = Retry { tries: 3, ..Retry::default() };
        let busy = || Problem::Busy { answer: String::new(), after: None };
        let mut tries = Tries::new(&retry);
        assert!(tries.pause(busy()).is_ok() && tries.pause(busy()).is_ok());
        assert!(tries.pause(busy()).is_err());
        let denied = Problem::Denied { who: String::new(), answer: String::new() };
        assert!(Tries::new(&retry).pause(denied).is_err());
    }
}
