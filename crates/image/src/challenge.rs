//! The challenges of `WWW-Authenticate` (RFC 9110, 11.6.1).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way to authenticate that a server takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    scheme: String,
    /// In order, as they came; a name may be there twice, the first counts.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// All challenges of an answer: one header line may hold several, and there may be several.
    pub(crate) fn read(headers: &HeaderMap) -> Vec<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter();
        lines.flat_map(|line| parse(&String::from_utf8_lossy(line.as_bytes()))).collect()
    }

    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter; an empty one says nothing.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let (_, value) = parameters.find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }
}

/// Challenges are separated by commas, and so are their parameters: a word that no `=` follows
/// begins a challenge. What is neither is passed over.
fn parse(line: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    for item in items(line) {
        match (parameter(item), challenges.last_mut()) {
            (Some(parameter), Some(challenge)) => challenge.parameters.push(parameter),
            (Some(_), None) => {}
            (None, _) => challenges.extend(begin(item)),
        }
    }
    challenges
}

/// The parts between commas that stand outside of quotes.
fn items(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_end = move |c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => return c == ',' && !is_quoted,
        }
        false
    };
    line.split(is_end).map(str::trim)
}

/// `name = value`.
fn parameter(item: &str) -> Option<(String, String)> {
    let (name, value) = item.split_once('=')?;
    let name = name.trim_end();
    let is_word = !name.is_empty() && !name.contains([' ', '\t', '"']);
    is_word.then(|| (name.to_owned(), unquoted(value.trim_start())))
}

/// A scheme, alone or with its first parameter.
fn begin(item: &str) -> Option<Challenge> {
    let (scheme, rest) = item.split_once([' ', '\t']).unwrap_or((item, ""));
    let parameters = parameter(rest.trim_start()).into_iter().collect();
    (!scheme.is_empty()).then(|| Challenge { scheme: scheme.to_owned(), parameters })
}

/// A value without its quotes and escapes; what stands behind the closing quote is left out.
fn unquoted(value: &str) -> String {
    let Some(quoted) = value.strip_prefix('"') else { return value.to_owned() };
    let mut text = String::new();
    let mut rest = quoted.chars();
    while let Some(c) = rest.next().filter(|c| *c != '"') {
        text.extend(if c == '\\' { rest.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn shown(line: &str) -> String {
        let shown = |challenge: Challenge| {
            let pair = |(name, value): &(String, String)| format!(" {name}={value:?}");
            let parameters: String = challenge.parameters.iter().map(pair).collect();
            challenge.scheme + &parameters
        };
        parse(line).into_iter().map(shown).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_and_parameters_are_told_apart() {
        for (line, expected) in [
            ("", ""),
            ("Basic", "Basic"),
            (r#"Basic realm="here""#, r#"Basic realm="here""#),
            (
                r#"Bearer realm="https://a/t",service="s",scope="a:b:pull,push c:d:pull""#,
                r#"Bearer realm="https://a/t" service="s" scope="a:b:pull,push c:d:pull""#,
            ),
            (
                r#"Basic realm="a, Bearer realm=b", Bearer realm="c""#,
                r#"Basic realm="a, Bearer realm=b"; Bearer realm="c""#,
            ),
            (r#"Negotiate, Basic realm="x""#, r#"Negotiate; Basic realm="x""#),
            (r#"Negotiate ab==, Basic"#, r#"Negotiate ab="="; Basic"#),
            (
                r"Bearer realm=https://a/t?x=y, service=s",
                r#"Bearer realm="https://a/t?x=y" service="s""#,
            ),
            (" Bearer \trealm = \"a\" ,, service= b ,", r#"Bearer realm="a" service="b""#),
            (r#"Basic realm="say \"a, b\\\"""#, r#"Basic realm="say \"a, b\\\"""#),
            (r#"Basic realm="no end, x=y"#, r#"Basic realm="no end, x=y""#),
            (r#"realm="of nothing", Basic"#, "Basic"),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
    }

    #[test]
    fn every_line_is_read_and_names_have_no_case() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("BASIC Realm=\"a\""));
        headers
            .append(WWW_AUTHENTICATE, HeaderValue::from_bytes(b"bearer REALM=\"\xff\"").unwrap());
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\" \""));
        let challenges = Challenge::read(&headers);
        assert!(challenges[0].is("basic") && challenges[1].is("Bearer"));
        let realms: Vec<_> = challenges.iter().map(|found| found.parameter("realm")).collect();
        assert_eq!(realms, [Some("a"), Some("\u{fffd}"), None]);
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in ".{0,80}") {
            parse(&line);
        }

        #[test]
        fn any_quoted_value_is_read_as_it_was(value in ".{0,40}") {
            let quoted = value.replace('\\', r"\\").replace('"', "\\\"");
            let challenges = parse(&format!("Basic, Bearer a=\"{quoted}\", b=c"));
            let expected = [("a".to_owned(), value), ("b".to_owned(), "c".to_owned())];
            prop_assert_eq!(&challenges[1].parameters, &expected);
        }
    }
}
