//! Numbers out of many.

/// The value that this part of all lie at or below.
pub(super) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short list"
    )]
    let index = ((values.len() as f64 * part).ceil() as usize).saturating_sub(1);
    values.get(index).copied().unwrap_or_default()
}

/// The value in the middle.
pub(super) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut times = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!([0.0, 0.5, 0.99].map(|part| quantile(&mut times, part)), [1.0, 3.0, 5.0]);
        assert!(quantile(&mut [], 0.5).abs() < f64::EPSILON);
    }
}
