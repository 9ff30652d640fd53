//! Kubernetes' quantities (`100m`, `1.5Gi`, `2e3`): read into whole numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The text is not a quantity, or is negative or too large to be an amount of anything here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a quantity: use a number with m, k, M, G, T, Ki, Mi, Gi or Ti")]
pub struct InvalidQuantity {
    /// What was read.
    pub text: String,
}

/// The quantity in thousandths, rounded up: what CPUs are counted in.
pub fn millis(text: &str) -> Result<u64, InvalidQuantity> {
    parse(text, 1000).ok_or_else(|| InvalidQuantity { text: text.to_owned() })
}

/// The quantity in whole units, rounded up: bytes, for one.
pub fn units(text: &str) -> Result<u64, InvalidQuantity> {
    parse(text, 1).ok_or_else(|| InvalidQuantity { text: text.to_owned() })
}

/// Bytes in the kubelet's form for memory: whole KiB.
pub(crate) fn kibibytes(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes >> 10))
}

/// Thousandths of a CPU, in their shortest form.
pub(crate) fn cpus(millis: u64) -> Quantity {
    Quantity(if millis.is_multiple_of(1000) {
        (millis / 1000).to_string()
    } else {
        format!("{millis}m")
    })
}

/// Any whole number.
pub(crate) fn count(units: u64) -> Quantity {
    Quantity(units.to_string())
}

fn parse(text: &str, scale: u128) -> Option<u64> {
    let end =
        text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (numerator, denominator) = factor(suffix)?;
    let (digits, decimals) = digits(number.strip_prefix('+').unwrap_or(number))?;
    let over = denominator.checked_mul(10_u128.checked_pow(decimals)?)?;
    let value = digits.checked_mul(numerator)?.checked_mul(scale)?.div_ceil(over);
    u64::try_from(value).ok()
}

/// `1.50` is 150 and 2 decimals.
fn digits(number: &str) -> Option<(u128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    Some((format!("{whole}{fraction}").parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

/// What a suffix multiplies and divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let power = |base: u128, exponent: u32| Some((base.checked_pow(exponent)?, 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => Some((1, 1)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => exponent(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

fn exponent(exponent: i32) -> Option<(u128, u128)> {
    let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_whole_numbers() {
        let table = [
            ("0", 0),
            ("5", 5),
            ("+5", 5),
            ("1Ki", 1024),
            ("1.5Gi", 3 << 29),
            (".5k", 500),
            ("100M", 100_000_000),
            ("1e3", 1000),
            ("12E-1", 2),
            ("1E", 1_000_000_000_000_000_000),
            ("100m", 1),
        ];
        for (text, value) in table {
            assert_eq!(units(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn cpus_are_counted_in_thousandths() {
        for (text, value) in [("1", 1000), ("250m", 250), ("0.1", 100), ("1500u", 2), ("2", 2000)] {
            assert_eq!(millis(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "-1",
            "1 Gi",
            "Gi",
            ".",
            "1.2.3",
            "1gi",
            "1e",
            "1e99",
            "99999999999Ei",
            "0x10",
            "1µ",
        ] {
            assert_eq!(units(text), Err(InvalidQuantity { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn cpus_are_written_in_their_shortest_form() {
        assert_eq!(cpus(2000).0, "2");
        assert_eq!(cpus(1900).0, "1900m");
        assert_eq!(kibibytes(4096).0, "4Ki");
    }
}
