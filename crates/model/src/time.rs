//! Event time: minutes, watermarks and frontiers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds in one tumbling window.
pub const MINUTE_MS: i64 = 60_000;

/// The earliest accepted event time: 2000-01-01T00:00:00Z.
pub const EVENT_TIME_MIN_MS: i64 = 946_684_800_000;

/// The first event time too late to be accepted: 2100-01-01T00:00:00Z.
pub const EVENT_TIME_END_MS: i64 = 4_102_444_800_000;

/// A one-minute tumbling window `[start, start + 60 s)` of UTC event time, numbered from the Unix epoch.
///
/// ```
/// # use adtally_model::Minute;
/// let minute = Minute::of(90_000);
/// assert_eq!(minute.start_ms(), 60_000);
/// assert_eq!(minute.end_ms(), 120_000);
/// assert_eq!(Minute::of(119_999), minute);
/// assert_ne!(Minute::of(120_000), minute);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Minute(pub i64);

impl Minute {
    /// The minute that contains an event time.
    #[inline]
    pub const fn of(event_time_ms: i64) -> Self {
        Minute(event_time_ms.div_euclid(MINUTE_MS))
    }

    /// Whether the minute contains an event time.
    #[inline]
    pub const fn contains(self, event_time_ms: i64) -> bool {
        self.start_ms() <= event_time_ms && event_time_ms < self.end_ms()
    }

    /// Its first millisecond.
    #[inline]
    pub const fn start_ms(self) -> i64 {
        self.0 * MINUTE_MS
    }

    /// The millisecond after its last one.
    #[inline]
    pub const fn end_ms(self) -> i64 {
        (self.0 + 1) * MINUTE_MS
    }

    /// The next minute.
    pub const fn next(self) -> Self {
        Minute(self.0 + 1)
    }
}

/// A lower bound on future event times, or none yet. It never moves back.
///
/// ```
/// # use adtally_model::Watermark;
/// let mut watermark = Watermark::NONE;
/// assert!(watermark.advance(5));
/// assert!(!watermark.advance(3));
/// assert_eq!(watermark.get(), Some(5));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Watermark(Option<i64>);

impl Watermark {
    /// No watermark yet.
    pub const NONE: Watermark = Watermark(None);

    /// A watermark at this time.
    pub const fn at(ms: i64) -> Self {
        Watermark(Some(ms))
    }

    /// Raises it to `ms`. Returns whether it moved; an earlier time changes nothing.
    pub fn advance(&mut self, ms: i64) -> bool {
        if self.0.is_none_or(|now| now < ms) {
            self.0 = Some(ms);
            true
        } else {
            false
        }
    }

    /// Its time, if it has one.
    #[inline]
    pub const fn get(self) -> Option<i64> {
        self.0
    }

    /// Whether it has reached a time.
    #[inline]
    pub fn reached(self, ms: i64) -> bool {
        self.0.is_some_and(|now| now >= ms)
    }
}

/// The frontiers of a partition, recorded in every epoch. None of them ever moves back, whatever the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Frontiers {
    /// The least watermark of the inputs that hold the partition's watermark.
    pub watermark: Watermark,
    /// Minutes that end at or before it are closed: complete as far as known.
    pub closed: Watermark,
    /// Minutes that end at or before it are final: only corrections can change them.
    pub final_: Watermark,
    /// Identities of minutes that end at or before it are forgotten. The other minutes are live.
    pub expired: Watermark,
}

/// The state of a minute's count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MinuteState {
    /// Still being counted.
    Open,
    /// Complete as far as known, but still revisable.
    Closed,
    /// Never changes again.
    Final,
}

impl MinuteState {
    /// The word used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            MinuteState::Open => "open",
            MinuteState::Closed => "closed",
            MinuteState::Final => "final",
        }
    }
}

impl fmt::Display for MinuteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Frontiers {
    /// Whether the identities of a minute are still kept.
    #[inline]
    pub fn is_live(&self, minute: Minute) -> bool {
        !self.expired.reached(minute.end_ms())
    }

    /// Whether no frontier is before the one in `earlier`.
    pub fn follows(&self, earlier: &Frontiers) -> bool {
        self.watermark >= earlier.watermark
            && self.closed >= earlier.closed
            && self.final_ >= earlier.final_
            && self.expired >= earlier.expired
    }

    /// The state of a minute. `reopened_from` is the least watermark of the holding inputs with a backlog; closed
    /// minutes that it has not passed are open again.
    pub fn state_of(&self, minute: Minute, reopened_from: Option<i64>) -> MinuteState {
        let end = minute.end_ms();
        if self.final_.reached(end) {
            MinuteState::Final
        } else if self.closed.reached(end) && reopened_from.is_none_or(|behind| behind >= end) {
            MinuteState::Closed
        } else {
            MinuteState::Open
        }
    }
}

/// Formats event time as RFC 3339 UTC with as few digits as necessary: `2026-01-31T10:00:00Z`, or with `.123`.
pub fn rfc3339(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000);
    let of_day = ms.rem_euclid(86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60, of_day % 1_000);
    if milli == 0 {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    } else {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// The UTC date `YYYY-MM-DD` and hour of an event time, by which the lake is partitioned.
pub fn date_and_hour(ms: i64) -> (String, u8) {
    let (year, month, day) = civil_from_days(ms.div_euclid(86_400_000));
    (format!("{year:04}-{month:02}-{day:02}"), (ms.rem_euclid(86_400_000) / 3_600_000) as u8)
}

/// Reads an RFC 3339 date-time with an offset (`Z`, `z`, `+hh:mm`, `-hh:mm`; `T`, `t` or a space between date and time)
/// and returns epoch milliseconds; finer fractions are truncated towards the past. A second 60, an impossible
/// date or anything else is `None`.
///
/// Grammar: RFC 3339 section 5.6.
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let digits = |from: usize, len: usize| -> Option<i64> {
        let part = text.get(from..from + len)?;
        part.iter().try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, byte: u8| text.get(at) == Some(&byte);
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let separators =
        is(4, b'-') && is(7, b'-') && matches!(text.get(10), Some(b'T' | b't' | b' ')) && is(13, b':') && is(16, b':');
    if !separators || hour > 23 || minute > 59 || second > 59 || !(1..=12).contains(&month) {
        return None;
    }
    if day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let mut at = 19;
    let mut milli = 0;
    if is(at, b'.') {
        let fraction = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        for place in 0..3 {
            milli = milli * 10 + if place < fraction { i64::from(text[at + 1 + place] - b'0') } else { 0 };
        }
        at += 1 + fraction;
    }
    let offset_minutes = match text.get(at)? {
        b'Z' | b'z' if text.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == at + 6 && is(at + 3, b':') => {
            let (hours, minutes) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 60 + minutes;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    Some((((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second) * 1_000 + milli)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`], from the same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_reads_what_it_writes_and_refuses_the_rest() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse_rfc3339(text.as_bytes()), expected, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-11-22T17:33:11Z", Some(1_795_368_791_000));
        check("2026-11-22t17:33:11.9999z", Some(1_795_368_791_999));
        check("2026-11-22 17:33:11.5+05:30", Some(1_795_368_791_500 - 19_800_000));
        check("1969-12-31T23:59:59.999-00:00", Some(-1));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800_000));
        for text in [
            "2023-02-29T00:00:00Z",
            "2026-11-22T17:33:60Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T17:33:11",
            "2026-11-22",
            "2026-11-22T17:33:11.Z",
            "2026-11-22T17:33:11+0530",
            "2026-11-22T17:33:11Zx",
            "+026-11-22T17:33:11Z",
            "",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-11-22T17:33:11+24:00",
        ] {
            check(text, None);
        }
        for ms in [0, EVENT_TIME_MIN_MS, EVENT_TIME_END_MS - 1, 1_709_164_799_001, 951_782_400_000] {
            assert_eq!(parse_rfc3339(rfc3339(ms).as_bytes()), Some(ms));
        }
    }
}
