//! Environment files, which a pod's own containers write (KEP-3721, `fileKeyRef`). Pure.

/// The value of `key` in an environment file; none if it is not there.
///
/// A line is `NAME='value'`, where the value may hold line ends, or `NAME=value` up to a `#`, as Kubernetes 1.34 had it. What
/// begins with `#` is a comment. The first line of a name counts.
pub(crate) fn find(text: &str, key: &str) -> Option<String> {
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = after;
        let line = line.trim();
        let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let value = value.trim_start();
        let value = match value.strip_prefix('\'') {
            Some(begun) => {
                let (value, after) = quoted(begun, rest);
                rest = after;
                value
            }
            None => value.split('#').next().unwrap_or_default().trim_end().to_owned(),
        };
        if name.trim() == key {
            return Some(value);
        }
    }
    None
}

/// What is up to the closing quote: in the rest of the line, or in lines after it; and what comes after that line.
fn quoted<'a>(line: &str, after: &'a str) -> (String, &'a str) {
    if let Some((value, _)) = line.split_once('\'') {
        return (value.to_owned(), after);
    }
    let (more, tail) = after.split_once('\'').unwrap_or((after, ""));
    let next = tail.split_once('\n').map_or("", |(_, next)| next);
    (format!("{line}\n{more}"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_its_value_is_written() {
        let text = "# FIRST='no'\n\nPLAIN=one # said\n  SPACED = 'two # three' # four\nLINES='a\nB=b\n'\nLAST='x'\nLAST='y'\n\
                    EMPTY=''\nOPEN='never";
        for (key, wanted) in [
            ("FIRST", None),
            ("PLAIN", Some("one")),
            ("SPACED", Some("two # three")),
            ("LINES", Some("a\nB=b\n")),
            ("B", None),
            ("LAST", Some("x")),
            ("EMPTY", Some("")),
            ("OPEN", Some("never\n")),
            ("NONE", None),
        ] {
            assert_eq!(find(text, key).as_deref(), wanted, "{key}");
        }
    }
}
