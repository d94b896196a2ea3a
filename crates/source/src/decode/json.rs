//! The general parser of a JSON object: strict RFC 8259 syntax, without recursion and without building a tree.
//!
//! No library meets the whole contract: in unused fields, well-formed JSON of any depth and with lone surrogates must
//! be skipped, and ill-formed JSON must be detected (sonic-rs skips `\u` escapes unchecked and recurses; serde_json
//! rejects keys with lone surrogates).

/// The kind of a scanned value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A string; its span excludes the quotes.
    String,
    /// A number.
    Number,
    /// `null`.
    Null,
    /// `true`, `false`, an array or an object.
    Other,
}

/// A scanned value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Where it begins.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// Whether it is a string with escapes.
    pub(crate) escaped: bool,
    /// Whether it contains, at any depth, a lone surrogate.
    pub(crate) lone: bool,
}

/// A syntax error, and its offset (from 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Broken {
    /// The error in words.
    pub(crate) what: &'static str,
    /// Offset in the line, in bytes.
    pub(crate) at: usize,
}

/// A scanned string: the offset after its closing quote, and its special features.
struct Text {
    end: usize,
    escaped: bool,
    lone: bool,
}

/// Scans one line, whose UTF-8 must have been checked. `depth` has a bit for each open container, which says its kind;
/// the caller owns it, so it is not allocated for each line.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: &'a mut Vec<bool>,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of a line.
    pub(crate) fn new(bytes: &'a [u8], depth: &'a mut Vec<bool>) -> Self {
        Scanner { bytes, at: 0, depth }
    }

    /// Reads the line as one object. Calls `member` with the key (without its quotes) and the value of each member, in
    /// order.
    pub(crate) fn object(&mut self, mut member: impl FnMut(Scanned, Scanned)) -> Result<(), Broken> {
        self.skip_whitespace();
        if self.peek() != Some(b'{') {
            return self.broken("not an object");
        }
        self.at += 1;
        self.skip_whitespace();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let key = self.key()?;
                let value = self.value()?;
                member(key, value);
                self.skip_whitespace();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return self.broken("expected a comma or the object's end"),
                }
                self.skip_whitespace();
            }
        }
        self.skip_whitespace();
        if self.at == self.bytes.len() { Ok(()) } else { self.broken("text after the object") }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn broken<T>(&self, what: &'static str) -> Result<T, Broken> {
        Err(Broken { what, at: self.at })
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Scanned, Broken> {
        if self.peek() != Some(b'"') {
            return self.broken("expected a key");
        }
        let start = self.at + 1;
        let text = self.string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return self.broken("expected a colon");
        }
        self.at += 1;
        Ok(Scanned { kind: Kind::String, start, end: text.end - 1, escaped: text.escaped, lone: text.lone })
    }

    /// A value of any depth, without recursion.
    fn value(&mut self) -> Result<Scanned, Broken> {
        self.skip_whitespace();
        let start = self.at;
        let (kind, escaped, mut lone) = match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                return Ok(Scanned {
                    kind: Kind::String,
                    start: start + 1,
                    end: text.end - 1,
                    escaped: text.escaped,
                    lone: text.lone,
                });
            }
            Some(b'{' | b'[') => (Kind::Other, false, false),
            _ => {
                let kind = self.scalar()?;
                return Ok(Scanned { kind, start, end: self.at, escaped: false, lone: false });
            }
        };
        self.container(&mut lone)?;
        Ok(Scanned { kind, start, end: self.at, escaped, lone })
    }

    /// An array or object, from its opening to its closing bracket.
    fn container(&mut self, lone: &mut bool) -> Result<(), Broken> {
        self.depth.clear();
        loop {
            // At the beginning of a value.
            self.skip_whitespace();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.skip_whitespace();
                    let (is_object, close) = if open == b'{' { (true, b'}') } else { (false, b']') };
                    if self.peek() != Some(close) {
                        self.depth.push(is_object);
                        if is_object {
                            *lone |= self.key()?.lone;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                Some(b'"') => *lone |= self.string()?.lone,
                _ => {
                    self.scalar()?;
                }
            }
            // After a value.
            loop {
                let Some(&is_object) = self.depth.last() else { return Ok(()) };
                self.skip_whitespace();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if is_object {
                            self.skip_whitespace();
                            *lone |= self.key()?.lone;
                        }
                        break;
                    }
                    Some(b'}') if is_object => self.at += 1,
                    Some(b']') if !is_object => self.at += 1,
                    _ => return self.broken("expected a comma or a closing bracket"),
                }
                self.depth.pop();
            }
        }
    }

    /// A number or a literal.
    fn scalar(&mut self) -> Result<Kind, Broken> {
        let rest = &self.bytes[self.at..];
        for (word, kind) in [(&b"null"[..], Kind::Null), (b"true", Kind::Other), (b"false", Kind::Other)] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(kind);
            }
        }
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.broken("expected a value"),
            None => self.broken("the line ends within the object"),
        }
    }

    fn number(&mut self) -> Result<Kind, Broken> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.broken("expected a digit"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        self.digits();
        if self.at == start { self.broken("expected a digit") } else { Ok(()) }
    }

    /// A string, from its opening quote to after its closing quote.
    fn string(&mut self) -> Result<Text, Broken> {
        self.at += 1;
        let (mut escaped, mut lone) = (false, false);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Text { end: self.at, escaped, lone });
                }
                Some(b'\\') => {
                    escaped = true;
                    lone |= self.escape()?;
                }
                Some(0..=0x1f) => return self.broken("a control character in a string"),
                Some(_) => self.at += 1,
                None => return self.broken("the line ends within a string"),
            }
        }
    }

    /// An escape; returns whether it is a lone surrogate. A pair is consumed as one.
    fn escape(&mut self) -> Result<bool, Broken> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(false)
            }
            Some(b'u') => {
                let Some(unit) = hex4(self.bytes, self.at + 2) else { return self.broken("a broken \\u escape") };
                self.at += 6;
                match unit {
                    0xd800..=0xdbff => {
                        let low = if self.bytes[self.at..].starts_with(b"\\u") {
                            hex4(self.bytes, self.at + 2)
                        } else {
                            None
                        };
                        if matches!(low, Some(0xdc00..=0xdfff)) {
                            self.at += 6;
                            Ok(false)
                        } else {
                            Ok(true)
                        }
                    }
                    0xdc00..=0xdfff => Ok(true),
                    _ => Ok(false),
                }
            }
            _ => self.broken("an unknown escape"),
        }
    }
}

/// Four hexadecimal digits.
fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |sum, &byte| Some(sum << 4 | char::from(byte).to_digit(16)?))
}

/// Appends the unescaped text of a string to `out`. Its escapes must be valid, without lone surrogates.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'\\' {
            out.push(byte);
            at += 1;
            continue;
        }
        at += 2;
        match raw.get(at - 1) {
            Some(b'b') => out.push(0x08),
            Some(b'f') => out.push(0x0c),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'u') => {
                let mut unit = hex4(raw, at).unwrap_or(0xfffd);
                at += 4;
                if let 0xd800..=0xdbff = unit {
                    let low = hex4(raw, at + 2).unwrap_or(0xdc00);
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
                    at += 6;
                }
                let text = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(text.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(&other) => out.push(other),
            None => return,
        }
    }
}

/// Whether a text is one complete JSON object.
pub(crate) fn is_object(text: &[u8]) -> bool {
    simdutf8::basic::from_utf8(text).is_ok() && Scanner::new(text, &mut Vec::new()).object(|_, _| {}).is_ok()
}
