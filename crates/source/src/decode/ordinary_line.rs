//! Parses ordinary lines in one pass: flat JSON objects of plain strings, numbers and literals, in any key order.
//!
//! Everything unusual (escapes, nesting, exponents, odd spaces, a syntax error) is left to the general parser, so both
//! give the same results. Line ends are found in the same pass; nothing is allocated.

use super::settings::FIELDS;
use super::short_text;
use super::value::Value;

/// The number of places in a line whose keys are guessed from the previous line; keys at later places are looked up.
const GUESSES: usize = 16;

/// Stands for a key that names no field.
const UNKNOWN: usize = FIELDS;

/// The keys to look for.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    names: [Vec<u8>; FIELDS],
    quoted: [Quoted; FIELDS],
}

/// A key with its closing quote and the colon that follows it in compact JSON. If JSON must escape the key, bytes that
/// no text contains.
#[derive(Clone, Debug)]
struct Quoted {
    bytes: Vec<u8>,
    /// Its first [`WINDOW`] bytes, and a mask with their bits set, both padded with zeros.
    window: [u128; 2],
    mask: [u128; 2],
}

/// The number of bytes that are compared at once.
const WINDOW: usize = 32;

impl Quoted {
    fn new(name: &str) -> Self {
        let is_escaped = name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        let bytes = if is_escaped { vec![NEVER] } else { [name.as_bytes(), b"\":"].concat() };
        let word = |of: &dyn Fn(u8) -> u8, from: usize| {
            let byte = |at: usize| bytes.get(from + at).map_or(0, |&byte| of(byte));
            u128::from_le_bytes(std::array::from_fn(byte))
        };
        let (window, mask) = ([0, 16].map(|from| word(&|byte| byte, from)), [0, 16].map(|from| word(&|_| 0xff, from)));
        Quoted { bytes, window, mask }
    }

    /// Whether it occurs at this offset.
    #[inline]
    fn stands_at(&self, text: &[u8], at: usize) -> bool {
        match text.get(at..at + WINDOW).map(|window| window.as_chunks::<16>().0) {
            Some([low, high]) if self.bytes.len() <= WINDOW => {
                let differs =
                    |half: usize, found: &[u8; 16]| (u128::from_le_bytes(*found) ^ self.window[half]) & self.mask[half];
                differs(0, low) | differs(1, high) == 0
            }
            _ => text.get(at..).is_some_and(|rest| rest.starts_with(&self.bytes)),
        }
    }
}

/// A byte that never occurs in UTF-8.
const NEVER: u8 = 0xff;

/// The field at each place of the previous lines; a correct guess saves the look-up.
#[derive(Clone, Debug)]
pub(crate) struct Order([usize; GUESSES]);

impl Default for Order {
    fn default() -> Self {
        Order(std::array::from_fn(|place| place.min(UNKNOWN)))
    }
}

impl Keys {
    /// The keys of the fields, in the order of the fields.
    pub(crate) fn new(names: [&str; FIELDS]) -> Self {
        Keys { names: names.map(|name| name.as_bytes().to_vec()), quoted: names.map(Quoted::new) }
    }

    /// The field that a key names.
    #[inline]
    pub(crate) fn field(&self, key: &[u8]) -> Option<usize> {
        self.names.iter().position(|name| name == key)
    }
}

/// Where an ordinary line ends.
pub(crate) struct Extent {
    /// Offset after the object, which is where the line ends, its line ending excluded.
    pub(crate) end: usize,
    /// Offset at which the next line begins.
    pub(crate) next: usize,
}

/// Parses the line that begins at `at` and stores the values of its fields in `values`. Returns `None` if the line is
/// not ordinary; `values` is then unspecified. The text must be valid UTF-8.
#[inline]
pub(crate) fn read<'a>(
    text: &'a [u8],
    at: usize,
    keys: &Keys,
    order: &mut Order,
    values: &mut [Value<'a>; FIELDS],
) -> Option<Extent> {
    *values = [Value::Absent; FIELDS];
    if *text.get(at)? != b'{' {
        return None;
    }
    let mut at = at + 1;
    'object: for place in 0.. {
        // Compact JSON has no spaces: they are searched for only if the expected byte is missing.
        while *text.get(at)? != b'"' {
            at = space(text, at)?;
        }
        at += 1;
        let guess = order.0[place % GUESSES];
        let field = match keys.quoted.get(guess) {
            Some(quoted) if quoted.stands_at(text, at) => {
                at += quoted.bytes.len();
                guess
            }
            _ => {
                let close = string_end(text, at)?;
                let field = keys.field(text.get(at..close)?).unwrap_or(UNKNOWN);
                order.0[place % GUESSES] = field;
                at = close + 1;
                while *text.get(at)? != b':' {
                    at = space(text, at)?;
                }
                at += 1;
                field
            }
        };
        let mut value;
        (value, at) = scalar(text, at)?;
        if let Some(slot) = values.get_mut(field) {
            *slot = value;
        }
        loop {
            match *text.get(at)? {
                b',' => break,
                b'}' => break 'object,
                // Checked only here, so that integers are not slower.
                b'.' => {
                    (value, at) = decimal(text, at, value)?;
                    if let Some(slot) = values.get_mut(field) {
                        *slot = value;
                    }
                }
                _ => at = space(text, at)?,
            }
        }
        at += 1;
    }
    let end = at + 1;
    let next = match text.get(end..) {
        None | Some([]) => end,
        Some([b'\n', ..]) => end + 1,
        Some([b'\r', b'\n', ..]) => end + 2,
        Some(_) => return None,
    };
    Some(Extent { end, next })
}

/// A plain string, an integer or a literal, and the offset after it.
#[inline]
fn scalar(text: &[u8], mut at: usize) -> Option<(Value<'_>, usize)> {
    loop {
        return match *text.get(at)? {
            b'"' => {
                let end = string_end(text, at + 1)?;
                Some((Value::Text(text.get(at + 1..end)?), end + 1))
            }
            b'0' => Some((Value::Integer(text.get(at..=at)?), at + 1)),
            b'1'..=b'9' => {
                let end = digits_end(text, at + 1);
                Some((Value::Integer(text.get(at..end)?), end))
            }
            b'-' if matches!(text.get(at + 1), Some(b'1'..=b'9')) => {
                let end = digits_end(text, at + 2);
                Some((Value::Integer(text.get(at..end)?), end))
            }
            b'n' if text.get(at..)?.starts_with(b"null") => Some((Value::Absent, at + 4)),
            b't' if text.get(at..)?.starts_with(b"true") => Some((Value::Other, at + 4)),
            b'f' if text.get(at..)?.starts_with(b"false") => Some((Value::Other, at + 5)),
            _ => {
                at = space(text, at)?;
                continue;
            }
        };
    }
}

/// A decimal number whose integer was already parsed and whose point is at `at`, and the offset after the number.
fn decimal<'a>(text: &'a [u8], at: usize, integer: Value<'a>) -> Option<(Value<'a>, usize)> {
    let Value::Integer(digits) = integer else { return None };
    let start = at.checked_sub(digits.len()).filter(|&start| text.get(start..at) == Some(digits))?;
    let end = digits_end(text, at + 1);
    (end > at + 1).then_some((Value::Decimal(text.get(start..end)?), end))
}

/// The offset after a space, which must be at `at`: other whitespace is not ordinary.
#[inline]
fn space(text: &[u8], at: usize) -> Option<usize> {
    (text.get(at) == Some(&b' ')).then_some(at + 1)
}

/// A word with 1 in each byte.
const ONES: u64 = short_text::ONES as u64;

/// The highest bit of each byte.
const HIGHS: u64 = ONES * 0x80;

#[inline]
fn digits_end(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..at + 8).and_then(|chunk| chunk.first_chunk()) {
        let values = u64::from_le_bytes(*chunk) ^ (ONES * u64::from(b'0'));
        // For a byte above 9, the addition sets its highest bit, or the bit is already set.
        let others = (((values & (ONES * 0x7f)) + ONES * 0x76) | values) & HIGHS;
        if others != 0 {
            return at + others.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while matches!(text.get(at), Some(b'0'..=b'9')) {
        at += 1;
    }
    at
}

/// The offset of the closing quote of a string without escapes and control characters, searched eight bytes at a time.
#[inline]
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().ok()?);
        // In each of these the lowest set bit is exact: a borrow only comes from a byte that is itself a hit.
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hits = hits & HIGHS;
        if hits != 0 {
            at += hits.trailing_zeros() as usize / 8;
            return (text[at] == b'"').then_some(at);
        }
        at += 8;
    }
    loop {
        match *text.get(at)? {
            b'"' => return Some(at),
            b'\\' | 0..=0x1f => return None,
            _ => at += 1,
        }
    }
}
