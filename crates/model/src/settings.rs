//! Kinds of setting values: how each kind is written, its range, and the message for wrong values.
//!
//! A room's settings struct names the kind of each field: `#[serde(deserialize_with = "Span::<SECOND, DAY>::ms")]`.
//! Wrong values are serde errors that say what is expected. The errors never contain the value found, because it may be
//! a secret; the deserializer knows it and may add it with its place.

mod quantity;

#[cfg(test)]
mod tests;

pub use quantity::{format_size, format_span_ms, parse_size, parse_span_ms};

use crate::{Error, IdentityKey, Result};
use serde::Serializer;
use serde::de::{Deserializer, Error as _, SeqAccess, Unexpected, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

/// A second in milliseconds.
pub const SECOND: i64 = 1_000;
/// A minute in milliseconds.
pub const MINUTE: i64 = 60 * SECOND;
/// An hour in milliseconds.
pub const HOUR: i64 = 60 * MINUTE;
/// A day in milliseconds.
pub const DAY: i64 = 24 * HOUR;

/// A kibibyte in bytes.
pub const KIB: i64 = 1 << 10;
/// A mebibyte in bytes.
pub const MIB: i64 = 1 << 20;
/// A gibibyte in bytes.
pub const GIB: i64 = 1 << 30;

/// A duration such as `5s`, from `LEAST` to `MOST` milliseconds.
pub struct Span<const LEAST: i64, const MOST: i64>;

impl<const LEAST: i64, const MOST: i64> Span<LEAST, MOST> {
    /// Reads milliseconds.
    ///
    /// # Errors
    /// When the value is not a duration, or is out of range.
    pub fn ms<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let (least, most) = (format_span_ms(LEAST), format_span_ms(MOST));
        let wanted = format!("a duration from \"{least}\" to \"{most}\" such as \"250ms\", \"5s\", \"10m\" or \"2h\"");
        text(from, &wanted, |text| parse_span_ms(text).filter(|ms| (LEAST..=MOST).contains(ms)))
    }

    /// Reads a duration.
    ///
    /// # Errors
    /// As [`Self::ms`].
    pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(Self::ms(from)?.unsigned_abs()))
    }
}

/// A size such as `64KiB`, from `LEAST` to `MOST` bytes.
pub struct Size<const LEAST: i64, const MOST: i64>;

impl<const LEAST: i64, const MOST: i64> Size<LEAST, MOST> {
    /// Reads bytes.
    ///
    /// # Errors
    /// When the value is not a size, or is out of range.
    pub fn bytes<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<T, D::Error> {
        let (least, most) = (format_size(LEAST), format_size(MOST));
        let wanted = format!("a size from \"{least}\" to \"{most}\" such as \"64KiB\" or \"1MiB\"");
        let bytes = |text: &str| parse_size(text).filter(|bytes| (LEAST..=MOST).contains(bytes));
        text(from, &wanted, |text| bytes(text)?.try_into().ok())
    }

    /// Writes the size as [`Size::bytes`] reads it.
    ///
    /// # Errors
    /// As the serializer.
    pub fn text<S: Serializer, T: Copy + TryInto<i64>>(bytes: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_size((*bytes).try_into().unwrap_or(MOST)))
    }
}

/// A whole number from `LEAST` to `MOST`.
pub struct Whole<const LEAST: i64, const MOST: i64>;

impl<const LEAST: i64, const MOST: i64> Whole<LEAST, MOST> {
    /// Reads the number.
    ///
    /// # Errors
    /// When the value is not a whole number, or is out of range.
    pub fn number<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<T, D::Error> {
        from.deserialize_i64(WholeVisitor::<LEAST, MOST, T>(PhantomData))
    }
}

struct WholeVisitor<const LEAST: i64, const MOST: i64, T>(PhantomData<T>);

impl<const LEAST: i64, const MOST: i64, T: TryFrom<i64>> Visitor<'_> for WholeVisitor<LEAST, MOST, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {LEAST} to {MOST}")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        let fits = Some(number).filter(|number| (LEAST..=MOST).contains(number));
        fits.and_then(|number| number.try_into().ok())
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// A text of `LEAST` to `MOST` bytes without NUL.
pub struct Text<const LEAST: usize, const MOST: usize>;

impl<const LEAST: usize, const MOST: usize> Text<LEAST, MOST> {
    /// Whether a text is valid.
    pub fn fits(text: &str) -> bool {
        (LEAST..=MOST).contains(&text.len()) && !text.contains('\0')
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When the text is too short or too long.
    pub fn owned<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        let wanted = format!("a text of {LEAST} to {MOST} bytes");
        text(from, &wanted, |text| Self::fits(text).then(|| text.to_owned()))
    }
}

/// A list of at most `COUNT` texts of at most `BYTES` bytes.
pub struct Texts<const COUNT: usize, const BYTES: usize>;

impl<const COUNT: usize, const BYTES: usize> Texts<COUNT, BYTES> {
    /// Reads the texts.
    ///
    /// # Errors
    /// When there are too many texts, or one is too long.
    pub fn owned<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        let wanted = format!("a list of at most {COUNT} texts of at most {BYTES} bytes");
        let fits = |texts: &[String]| texts.len() <= COUNT && texts.iter().all(|text| text.len() <= BYTES);
        from.deserialize_seq(TextsVisitor { wanted: &wanted, fits })
    }
}

/// Reads file paths and glob patterns.
///
/// # Errors
/// When one of them is empty.
pub fn paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let fits = |texts: &[String]| texts.iter().all(|text| !text.is_empty());
    from.deserialize_seq(TextsVisitor { wanted: "a list of texts, none empty, such as [\"logs/*.ndjson\"]", fits })
}

/// Reads an IP address (or `localhost`) and a port.
///
/// # Errors
/// When the text is not an address.
pub fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    text(from, "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"", |text| {
        match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port))),
            None => text.parse().ok(),
        }
    })
}

/// Reads a time of day such as `02:30`, as milliseconds after midnight.
///
/// # Errors
/// When the text is not a time of day.
pub fn time_of_day<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    text(from, "a time of day from \"00:00\" to \"23:59\"", |text| {
        let (hour, minute) = text.split_once(':').filter(|_| text.len() == 5)?;
        let number = |digits: &str, end: i64| {
            let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<i64>().ok().filter(|number| is_number && *number < end)
        };
        Some(number(hour, 24)? * HOUR + number(minute, 60)? * MINUTE)
    })
}

/// Reads an identity key; `None` if the text is empty.
///
/// # Errors
/// When the text is not a key.
pub fn identity_key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IdentityKey>, D::Error> {
    text(from, "32 hex digits, or empty", |text| match text.len() {
        0 => Some(None),
        32 if text.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            u128::from_str_radix(text, 16).ok().map(|key| Some(IdentityKey::new(key.to_be_bytes())))
        }
        _ => None,
    })
}

/// Reads a value that is written as text. `read` returns `None` if the text does not match `wanted`.
///
/// # Errors
/// When the value is not text, or does not match `wanted`.
pub fn text<'de, D: Deserializer<'de>, T>(
    from: D,
    wanted: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    from.deserialize_str(TextVisitor { wanted, read })
}

struct TextVisitor<'a, F> {
    wanted: &'a str,
    read: F,
}

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextVisitor<'_, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Other("this text"), &self.wanted))
    }
}

struct TextsVisitor<'a, F> {
    wanted: &'a str,
    fits: F,
}

impl<'de, F: Fn(&[String]) -> bool> Visitor<'de> for TextsVisitor<'_, F> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        if (self.fits)(&texts) { Ok(texts) } else { Err(A::Error::invalid_value(Unexpected::Seq, &self.wanted)) }
    }
}

/// Two settings that are each valid but contradict each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clash {
    /// The setting to change: `time.dedup_horizon`.
    pub one: Cow<'static, str>,
    /// The violated relation between them: `must not be less than`.
    pub relation: &'static str,
    /// The other setting.
    pub other: Cow<'static, str>,
    /// The consequence of the contradiction, and the remedy.
    pub why: &'static str,
}

impl Clash {
    /// Rejects settings that contradict each other.
    ///
    /// # Errors
    /// A user error that describes the first clash.
    pub fn refuse(clashes: &[Clash]) -> Result<()> {
        clashes.first().map_or(Ok(()), |clash| Err(Error::user(clash.told(str::to_owned))))
    }

    /// The message; `shown` formats a setting by its key.
    pub fn told(&self, shown: impl Fn(&str) -> String) -> String {
        format!("{} {} {}: {}", shown(&self.one), self.relation, shown(&self.other), self.why)
    }
}

/// The settings of a room that affect verdicts, as text for a fingerprint of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canonical {
    /// The settings that the first fingerprint covered. This text must never change.
    pub first: String,
    /// Settings added later, each after a space and only if it differs from its default, so that the fingerprint stays
    /// the same for users who never set it. All but the first of them, `null_values`, need their name.
    pub later: String,
}
