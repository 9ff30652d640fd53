//! Several ways to the same end, timed in turns and set beside the first.

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};

use super::stats::quantile;
use super::table::Table;

/// One way, and the seconds that it took each time.
pub(super) struct Way {
    name: &'static str,
    pub(super) seconds: Vec<f64>,
}

/// Ways that were not gone yet.
pub(super) fn ways<const N: usize>(names: [&'static str; N]) -> [Way; N] {
    names.map(|name| Way { name, seconds: Vec::new() })
}

/// A table of them: `bytes` is what each has done in the end. The last column is how many times as fast as each the first one is.
pub(super) fn table(title: &str, bytes: usize, ways: &mut [Way]) -> Table {
    let head = ["", "best, ms", "median, ms", "worst, ms", "MB/s", "nodule's speed over it"];
    let mut table = Table::new(title, &head);
    let first = ways.first_mut().map_or(1.0, |way| quantile(&mut way.seconds, 0.5));
    for way in ways {
        let [best, middle, worst] = [0.0, 0.5, 1.0].map(|part| quantile(&mut way.seconds, part));
        let mut row = vec![way.name.to_owned()];
        row.extend([best, middle, worst].map(|seconds| format!("{:.0}", seconds * 1000.0)));
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        row.push(format!("{:.0}", bytes as f64 / 1e6 / middle));
        row.push(format!("{:.2}", middle / first));
        table.row(row);
    }
    table
}

/// The seconds that this takes.
pub(super) fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Timestamp::now();
    work()?;
    Ok(Timestamp::now().duration_since(begin).as_secs_f64())
}

/// Has what was written before on the disk: nobody's time is to have it in it.
pub(super) fn settle() {
    rustix::fs::sync();
}

/// The seconds of a `Pulled` Event: `… in 1.2s (1.2s including waiting). …`.
pub(super) fn told(message: &str) -> Result<f64> {
    let took = message.split_once(" in ").and_then(|(_, rest)| rest.split_once(" ("));
    let (took, _) = took.with_context(|| format!("no time in {message:?}"))?;
    let took: SignedDuration = took.parse().with_context(|| took.to_owned())?;
    Ok(took.as_secs_f64())
}

/// Bytes as megabytes.
pub(super) fn megabytes(bytes: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_how_long_a_pull_took() {
        let message = |took| {
            format!(
                "Successfully pulled image \"a\" in {took} ({took} including waiting). Image size: 1 bytes."
            )
        };
        for (took, seconds) in [("87ms", 0.087), ("1.234s", 1.234), ("2m3.500s", 123.5)] {
            let told = told(&message(took)).unwrap();
            assert!((told - seconds).abs() < 1e-9, "{took}: {told}");
        }
        assert!(
            told("Container image \"a\" already present on machine and can be accessed by the pod")
                .is_err()
        );
    }

    #[test]
    fn the_first_way_is_what_the_others_are_measured_by() {
        let mut all = ways(["a", "b"]);
        all[0].seconds = vec![0.5, 1.0, 9.0];
        all[1].seconds = vec![2.0];
        let text = table("T", 10_000_000, &mut all).text();
        let rows: Vec<Vec<_>> =
            text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["a", "500", "1000", "9000", "10", "1.00"]);
        assert_eq!(rows[1], ["b", "2000", "2000", "2000", "5", "2.00"]);
    }
}
