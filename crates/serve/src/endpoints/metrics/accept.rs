//! `Accept`: which of two media types a client prefers (RFC 9110, section 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// The default quality, in thousandths.
const QUALITY_MAX: u16 = 1_000;

/// Whether a client prefers the media type `special` to `ordinary`. The client gets `ordinary` otherwise, even if the
/// header accepts neither: metrics in the wrong format are more useful than a refusal. A range that does not name
/// `special` itself, such as `*/*`, does not ask for it. If both have equal quality, `special` is preferred.
pub(crate) fn prefers(headers: &HeaderMap, special: &str, ordinary: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range<'_>> = values.flat_map(|value| split(value, b',')).filter_map(Range::parse).collect();
    let named = ranges.iter().filter(|range| range.specificity(special) == Some(Specificity::Named));
    let wished = named.map(|range| range.quality).max().unwrap_or_default();
    wished > 0 && wished >= quality(&ranges, ordinary)
}

/// The quality of a media type. The most specific range that matches decides; of equally specific ranges, the best.
fn quality(ranges: &[Range<'_>], media_type: &str) -> u16 {
    let matching = ranges.iter().filter_map(|range| Some((range.specificity(media_type)?, range.quality)));
    matching.max().map_or(0, |(_, quality)| quality)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Specificity {
    /// `*/*`
    Any,
    /// `text/*`
    Group,
    /// `text/plain`, whatever its parameters: versions of one format.
    Named,
}

/// One element of the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range<'a> {
    group: &'a str,
    name: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// A malformed element is ignored.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = split(text, b';').map(trim);
        let (group, name) = parts.next()?.split_once('/')?;
        if !is_token(group) || !is_token(name) || (group == "*" && name != "*") {
            return None;
        }
        let mut quality = None;
        for parameter in parts {
            // A trailing semicolon leaves an empty parameter.
            if parameter.is_empty() {
                continue;
            }
            let (key, value) = parameter.split_once('=')?;
            if key.eq_ignore_ascii_case("q") && quality.is_none() {
                quality = Some(parse_quality(value)?);
            }
        }
        Some(Range { group, name, quality: quality.unwrap_or(QUALITY_MAX) })
    }

    fn specificity(&self, media_type: &str) -> Option<Specificity> {
        let (group, name) = media_type.split_once('/')?;
        match (self.group, self.name) {
            ("*", _) => Some(Specificity::Any),
            (own, "*") if own.eq_ignore_ascii_case(group) => Some(Specificity::Group),
            (own, own_name) if own.eq_ignore_ascii_case(group) && own_name.eq_ignore_ascii_case(name) => {
                Some(Specificity::Named)
            }
            _ => None,
        }
    }
}

/// `0` to `1` with at most three decimals, in thousandths.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(QUALITY_MAX),
        _ => None,
    }
}

/// The parts of a text between separators outside of quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |char: char| {
        let separates = !quoted && char == char::from(separator);
        let ends_escape = escaped;
        escaped = quoted && !ends_escape && char == '\\';
        quoted ^= char == '"' && !ends_escape;
        separates
    })
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const SPECIAL: &str = "application/openmetrics-text";

    fn check(accept: &str, expected: bool) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]);
        assert_eq!(prefers(&headers, SPECIAL, "text/plain"), expected, "{accept:?}");
    }

    #[test]
    fn only_what_is_named_and_welcome_is_preferred() {
        assert!(!prefers(&HeaderMap::new(), SPECIAL, "text/plain"));
        check("application/openmetrics-text", true);
        check("APPLICATION/openMetrics-text;version=1.0.0", true);
        check("application/openmetrics-text;q=0", false);
        check("application/openmetrics-text;q=0.000, text/plain", false);
        check("application/openmetrics-text; q=0.001", true);
        check("application/openmetrics-text ;\tQ=0.5 , text/plain;q=0.4", true);
        check("application/openmetrics-text;q=0.4,text/plain;q=0.5", false);
        check("application/openmetrics-text;q=0.4,text/*;q=0.5", false);
        check("application/openmetrics-text;q=0.4,*/*;q=0.5", false);
        check("application/openmetrics-text;q=0.4,text/plain;q=0.1,*/*", true);
        check("application/openmetrics-text,text/plain", true);
        check("application/openmetrics-text;version=0.0.1;q=0,application/openmetrics-text;version=1.0.0", true);
        check("", false);
        check("*/*", false);
        check("application/*", false);
        check("text/plain", false);
        check("application/openmetrics-text-not", false);
    }

    #[test]
    fn what_is_written_wrong_is_no_wish() {
        for quality in ["", "2", "1.001", "0.1234", "-0", ".5", "0,5", "one", "1.", "00.5"] {
            let expected = quality == "1.";
            check(&format!("application/openmetrics-text;q={quality}"), expected);
        }
        for range in
            ["application", "/", "*/openmetrics-text", "application/openmetrics text", "application/openmetrics-text;q"]
        {
            check(range, false);
        }
        check("nonsense, application/openmetrics-text", true);
    }

    #[test]
    fn quotes_hide_separators() {
        check(r#"text/plain;a="x, application/openmetrics-text""#, false);
        check(r#"application/openmetrics-text;a="b;q=0,\";q=0";q=1"#, true);
        check(r#"application/openmetrics-text;a="b";q=0"#, false);
    }

    #[test]
    fn several_headers_are_one() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_static("text/plain;q=0.3"));
        headers.append(ACCEPT, HeaderValue::from_static("application/openmetrics-text"));
        assert!(prefers(&headers, SPECIAL, "text/plain"));
    }
}
