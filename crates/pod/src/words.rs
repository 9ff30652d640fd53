//! Errors and durations in words, as users read them.

use std::time::Duration;

use jiff::SignedDuration;

/// An error and its causes on one line, as a user reads it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// A duration as Go prints one, to the millisecond.
pub(crate) fn short(took: Duration) -> String {
    let took = SignedDuration::try_from(took).unwrap_or_default();
    match took.as_secs() {
        0 => format!("{}ms", took.as_millis()),
        1..60 => format!("{:.3}s", took.as_secs_f64()),
        seconds => format!("{}m{:.3}s", seconds / 60, took.as_secs_f64() % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_prints_them() {
        assert_eq!(short(Duration::from_micros(1500)), "1ms");
        assert_eq!(short(Duration::from_millis(2345)), "2.345s");
        assert_eq!(short(Duration::from_millis(62_500)), "1m2.500s");
    }
}
