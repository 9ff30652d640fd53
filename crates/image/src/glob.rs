//! Shell patterns for one label of a host name, as pull secrets use them.

/// Whether `label` matches `pattern` from end to end: `*`, `?`, `[a-z]`, `[^x]` and `\c`
/// (the documented syntax of the kubelet's `config.json`). A broken pattern matches nothing.
pub(crate) fn matches(pattern: &str, label: &str) -> bool {
    let (pattern, label): (Vec<_>, Vec<_>) = (pattern.chars().collect(), label.chars().collect());
    walk(&pattern, &label)
}

/// Goes back to the last `*` only, so that no pattern costs more than `pattern × label` steps.
fn walk(mut pattern: &[char], mut label: &[char]) -> bool {
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        if let ['*', rest @ ..] = pattern {
            pattern = rest;
            star = Some((pattern, label));
            continue;
        }
        match (one(pattern, label), label, star) {
            (Some(rest), [_, tail @ ..], _) => (pattern, label) = (rest, tail),
            (None, [], _) if pattern.is_empty() => return true,
            (_, _, Some((after, [_, tail @ ..]))) => {
                (pattern, label) = (after, tail);
                star = Some((after, tail));
            }
            _ => return false,
        }
    }
}

/// Matches one character; the rest of the pattern if it does.
fn one<'p>(pattern: &'p [char], label: &[char]) -> Option<&'p [char]> {
    let c = *label.first()?;
    match pattern {
        ['?', rest @ ..] => Some(rest),
        ['[', class @ ..] => in_class(class, c),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == c).then_some(rest),
        [] => None,
    }
}

fn in_class(class: &[char], c: char) -> Option<&[char]> {
    let (negated, mut class) = match class {
        ['^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [']', rest @ ..] => return (found != negated).then_some(rest),
            [low, '-', high, rest @ ..] => {
                found |= (*low..=*high).contains(&c);
                rest
            }
            [only, rest @ ..] => {
                found |= *only == c;
                rest
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_labels() {
        for (pattern, label, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("*ab", "aab", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("r[0-9]", "r7", true),
            ("r[^0-9]", "r7", false),
            ("r[0-9", "r7", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, label), expected, "{pattern:?} {label:?}");
        }
    }

    proptest! {
        #[test]
        fn a_label_matches_itself_and_itself_between_stars(label in "[a-z0-9-]{0,20}") {
            prop_assert!(matches(&label, &label));
            let starred = format!("*{label}*");
            prop_assert!(matches(&starred, &label));
        }

        #[test]
        fn any_pattern_ends(pattern in "[*?a\\[\\]^\\\\-]{0,30}", label in "a{0,30}") {
            let _ = matches(&pattern, &label);
        }
    }
}
