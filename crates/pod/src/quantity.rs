//! Kubernetes' quantities as whole numbers (Kubernetes docs, "Quantity").

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity of bytes, rounded up; none if it does not parse or is negative.
pub(crate) fn bytes(quantity: &Quantity) -> Option<u64> {
    whole(number(quantity)?.ceil())
}

/// A quantity in thousandths, as CPUs are counted, rounded up; none if it does not parse or is negative.
pub(crate) fn thousandths(quantity: &Quantity) -> Option<u64> {
    /// What the sums of binary fractions may be off by is no reason to round up.
    const NOISE: f64 = 1e-6;
    whole((number(quantity)? * 1000.0 - NOISE).ceil().max(0.0))
}

fn number(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let split =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    Some(number * scale(suffix)?)
}

/// Saturates; no container is given 2^64 of anything.
fn whole(value: f64) -> Option<u64> {
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

/// A sum of quantities, in the notation of its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) bytes: u64,
    notation: Notation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// `Ki`, `Mi`, …
    Binary,
    /// `k`, `M`, …
    Decimal,
}

impl Total {
    /// A single one; none if it does not parse.
    pub(crate) fn of(quantity: &Quantity) -> Option<Self> {
        let binary = quantity.0.ends_with('i');
        let notation = if binary { Notation::Binary } else { Notation::Decimal };
        Some(Self { bytes: bytes(quantity)?, notation })
    }

    /// So many bytes, told in binary notation.
    pub(crate) fn binary(bytes: u64) -> Self {
        Self { bytes, notation: Notation::Binary }
    }

    /// The sum of those that there are; none if there are none.
    pub(crate) fn sum(totals: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        totals.into_iter().flatten().reduce(|sum, next| Self {
            bytes: sum.bytes.saturating_add(next.bytes),
            notation: if sum.bytes == 0 { next.notation } else { sum.notation },
        })
    }

    /// The greater.
    pub(crate) fn max(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter().chain(other).reduce(
            |one, other| {
                if other.bytes > one.bytes { other } else { one }
            },
        )
    }
}

/// The canonical form: the largest suffix that leaves a whole number. Below 1024 all are decimal.
impl std::fmt::Display for Total {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (base, suffixes) = match self.notation {
            Notation::Binary if self.bytes >= 1024 => {
                (1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
            }
            Notation::Binary | Notation::Decimal => (1000, ["", "k", "M", "G", "T", "P", "E"]),
        };
        let (mut number, mut suffixes) = (self.bytes, suffixes.iter().peekable());
        while number > 0 && number.is_multiple_of(base) && suffixes.len() > 1 {
            number /= base;
            suffixes.next();
        }
        write!(formatter, "{number}{}", suffixes.peek().unwrap_or(&&""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_written_in_its_canonical_form() {
        for (quantities, written) in [
            (&["1Gi"][..], "1Gi"),
            (&["1Gi", "512Mi"], "1536Mi"),
            (&["512Mi", "512Mi"], "1Gi"),
            (&["1Gi", "1G"], "2073741824"),
            (&["1G", "1Gi"], "2073741824"),
            (&["1G", "500M"], "1500M"),
            (&["0", "1Ki"], "1Ki"),
            (&["512", "512"], "1024"),
            (&["1Ki", "1"], "1025"),
            (&["0"], "0"),
            (&["1000", "0"], "1k"),
        ] {
            let totals = quantities.iter().map(|text| Total::of(&Quantity((*text).to_owned())));
            assert_eq!(Total::sum(totals).unwrap().to_string(), written, "{quantities:?}");
        }
        assert_eq!(Total::sum([None, None]), None);
    }

    #[test]
    fn cpus_are_counted_in_thousandths() {
        for (text, wanted) in [
            ("1", 1000),
            ("0.5", 500),
            ("250m", 250),
            ("1.1", 1100),
            ("333m", 333),
            ("100u", 1),
            ("0", 0),
        ] {
            assert_eq!(thousandths(&Quantity(text.to_owned())), Some(wanted), "{text}");
        }
        assert_eq!(thousandths(&Quantity("half".to_owned())), None);
    }

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
