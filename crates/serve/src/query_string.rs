//! Query strings: `name=value` pairs in percent-encoded UTF-8; each name must be known and occur once.

use crate::problem::{Problem, ProblemKind, quoted};

/// The values given for the parameters of one endpoint.
#[derive(Debug)]
pub(crate) struct Given {
    known: &'static [&'static str],
    values: Vec<Option<String>>,
}

impl Given {
    /// Reads a query string whose names must be among `known`.
    ///
    /// Nothing is ignored silently: a misspelt filter would otherwise change the question.
    pub(crate) fn read(query: Option<&str>, known: &'static [&'static str]) -> Result<Given, Problem> {
        let mut given = Given { known, values: vec![None; known.len()] };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| badly_encoded(name))?;
            let Some(at) = known.iter().position(|known| *known == name) else {
                return Err(unknown(&name, known));
            };
            let value = decode(value).ok_or_else(|| badly_encoded(value).of(&name))?;
            if given.values[at].replace(value).is_some() {
                let detail = format!("{name} is given more than once; give it once");
                return Err(Problem::new(ProblemKind::RepeatedParameter, detail).of(&name));
            }
        }
        Ok(given)
    }

    /// The value given for a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = self.known.iter().position(|known| *known == name)?;
        self.values.get(at)?.as_deref()
    }
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let detail = if known.is_empty() {
        format!("there is no parameter {}; this endpoint accepts none", quoted(name))
    } else {
        format!("there is no parameter {}; this endpoint accepts {}", quoted(name), known.join(", "))
    };
    Problem::new(ProblemKind::UnknownParameter, detail).of(name)
}

fn badly_encoded(text: &str) -> Problem {
    let detail = format!("{} is not percent-encoded UTF-8; write a literal % as %25", quoted(text));
    Problem::new(ProblemKind::BadEncoding, detail)
}

/// Decodes `application/x-www-form-urlencoded`: `+` is a space, `%XX` is a byte; the result must be UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_or_refused() {
        let check = |query: &str, expected: Result<[Option<&str>; 2], ProblemKind>| {
            let given = Given::read(Some(query), &["a", "b"]);
            let found = given.as_ref().map(|given| [given.get("a"), given.get("b")]).map_err(Problem::kind);
            assert_eq!(found, expected, "{query}");
        };
        check("", Ok([None, None]));
        check("&&a=1&", Ok([Some("1"), None]));
        check("b=x+y%2B%c3%A4&a", Ok([Some(""), Some("x y+ä")]));
        check("%61=1=2", Ok([Some("1=2"), None]));
        check("a=%", Err(ProblemKind::BadEncoding));
        check("a=%4", Err(ProblemKind::BadEncoding));
        check("a=%+1", Err(ProblemKind::BadEncoding));
        check("a=%ff", Err(ProblemKind::BadEncoding));
        check("%zz=1", Err(ProblemKind::BadEncoding));
        check("a=1&a=1", Err(ProblemKind::RepeatedParameter));
        check("a=1&%61=", Err(ProblemKind::RepeatedParameter));
        check("A=1", Err(ProblemKind::UnknownParameter));
        check("=1", Err(ProblemKind::UnknownParameter));
        check("a=1&c", Err(ProblemKind::UnknownParameter));
    }
}
