//! Kubernetes' quantities as whole numbers (Kubernetes docs, "Quantity").

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity of bytes, rounded up; none if it does not parse or is negative.
pub(crate) fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let split =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let value = (number * scale(suffix)?).ceil();
    // Saturates; no container is given 2^64 bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite and not negative"
    )]
    (value.is_finite() && value >= 0.0).then_some(value as u64)
}

fn scale(suffix: &str) -> Option<f64> {
    let power = |base: f64, letters: &str| {
        let exponent = letters.find(suffix.trim_end_matches('i'))?;
        Some(base.powi(i32::try_from(exponent).ok()? + 1))
    };
    match suffix {
        "" => Some(1.0),
        "m" => Some(1e-3),
        "u" => Some(1e-6),
        "n" => Some(1e-9),
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => power(1024.0, "KMGTPE"),
        "k" | "M" | "G" | "T" | "P" | "E" => power(1000.0, "kMGTPE"),
        exponent => Some(10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_is_read() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("129M", Some(129_000_000)),
            ("64Mi", Some(64 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("1k", Some(1000)),
            ("1Ki", Some(1024)),
            ("1500m", Some(2)),
            ("2Ti", Some(2 << 40)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("-1", None),
            ("1Zi", None),
            ("", None),
            ("Mi", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), wanted, "{text}");
        }
    }
}
