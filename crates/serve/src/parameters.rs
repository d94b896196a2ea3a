//! Parameters that several endpoints accept: turns the text of a request into a question. A violated rule is answered
//! with its own problem.

use crate::problem::{Problem, ProblemKind, quoted};
use crate::query_string::Given;
use adtally_model::time::{MINUTE_MS, parse_rfc3339};
use adtally_model::{Country, Minute, ip};
use adtally_store::questions::{Filters, KnownAt, MINUTES_MAX, Question, Revision, Span};

/// How many of the last minutes the question covers.
pub(crate) const MINUTES: &str = "minutes";
/// The first covered minute.
pub(crate) const FROM: &str = "from";
/// The end of the covered minutes, excluded.
pub(crate) const TO: &str = "to";
/// Only clicks from this country.
pub(crate) const FILTER_COUNTRY: &str = "filter_country";
/// Only clicks from this address.
pub(crate) const FILTER_IP: &str = "filter_ip";
/// Only clicks by this user.
pub(crate) const FILTER_USER_ID: &str = "filter_user_id";
/// Whether minutes that are still open are covered.
pub(crate) const INCLUDE_OPEN: &str = "include_open";
/// The revision that the answer must have reached.
pub(crate) const REVISION: &str = "revision";

/// The past time or revision whose answer is asked for.
pub(crate) const AS_OF: &str = "as_of";

/// The parameters that every question accepts.
pub(crate) const QUESTION: [&str; 9] =
    [MINUTES, FROM, TO, FILTER_COUNTRY, FILTER_IP, FILTER_USER_ID, INCLUDE_OPEN, REVISION, AS_OF];

/// The parameters of a question that has one more of its own.
pub(crate) const fn question_and(own: &'static str) -> [&'static str; QUESTION.len() + 1] {
    let mut all = [own; QUESTION.len() + 1];
    let (common, _) = all.split_at_mut(QUESTION.len());
    common.copy_from_slice(&QUESTION);
    all
}

/// The longest `user_id`, in bytes.
pub(crate) const USER_ID_BYTES_MAX: usize = 128;

/// Reads the parameters that all questions share, except [`revision`].
pub(crate) fn question(given: &Given) -> Result<Question, Problem> {
    let (span, filters, include_open) = (span(given)?, filters(given)?, boolean(given, INCLUDE_OPEN)?);
    Ok(Question { span, filters, include_open, as_of: as_of(given)? })
}

/// Reads the revision that a client has seen, if it sends one.
pub(crate) fn revision(given: &Given) -> Result<Option<Revision>, Problem> {
    let Some(text) = given.get(REVISION) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let detail = format!("revision is {}; send the revision of an earlier answer unchanged", quoted(text));
        Problem::new(ProblemKind::BadRevision, detail).of(REVISION)
    })
}

/// Reads a past time (RFC 3339) or a revision.
fn as_of(given: &Given) -> Result<Option<KnownAt>, Problem> {
    let Some(text) = given.get(AS_OF) else { return Ok(None) };
    let time = parse_rfc3339(restore_plus(text).as_bytes()).map(KnownAt::Time);
    time.or_else(|| text.parse().ok().map(KnownAt::Revision)).map(Some).ok_or_else(|| {
        let detail = format!(
            "as_of is {}; it must be a time such as 2026-01-31T10:00:00Z, or the revision of an earlier answer",
            quoted(text)
        );
        Problem::new(ProblemKind::BadAsOf, detail).of(AS_OF)
    })
}

/// Reads a parameter that is `true` or `false`; false if it is not given.
pub(crate) fn boolean(given: &Given, name: &str) -> Result<bool, Problem> {
    match given.get(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            let detail = format!("{name} is {}; it must be true or false", quoted(other));
            Err(Problem::new(ProblemKind::BadBoolean, detail).of(name))
        }
    }
}

fn span(given: &Given) -> Result<Span, Problem> {
    match (given.get(MINUTES), given.get(FROM), given.get(TO)) {
        (Some(text), None, None) => minutes(text).map(Span::Last),
        (None, Some(start), Some(end)) => between(minute(start, FROM)?, minute(end, TO)?),
        (None, None, None) => {
            let detail = format!("give minutes=M (the last M minutes, 1 to {MINUTES_MAX}), or from and to (RFC 3339)");
            Err(Problem::new(ProblemKind::SpanMissing, detail).of(MINUTES))
        }
        (Some(_), _, _) => {
            let detail = "minutes cannot be combined with from or to; give minutes, or from and to";
            Err(Problem::new(ProblemKind::SpanGivenTwice, detail).of(MINUTES))
        }
        (None, Some(_), None) => Err(half_given(FROM, TO)),
        (None, None, Some(_)) => Err(half_given(TO, FROM)),
    }
}

fn half_given(given: &str, missing: &str) -> Problem {
    Problem::new(ProblemKind::SpanHalfGiven, format!("{given} is given without {missing}; give both")).of(missing)
}

fn minutes(text: &str) -> Result<u32, Problem> {
    let Some(digits) = decimal(text) else {
        let detail = format!("minutes is {}; it must be a number from 1 to {MINUTES_MAX}", quoted(text));
        return Err(Problem::new(ProblemKind::BadMinutes, detail).of(MINUTES));
    };
    // Digits that do not fit are too large, like any other large number.
    digits.parse().ok().filter(|minutes| (1..=MINUTES_MAX).contains(minutes)).ok_or_else(|| {
        let detail = format!("minutes is {}; it must be from 1 to {MINUTES_MAX} (a week)", quoted(text));
        Problem::new(ProblemKind::MinutesOutOfRange, detail).of(MINUTES)
    })
}

/// Text that is `0|[1-9][0-9]*`.
pub(crate) fn decimal(text: &str) -> Option<&str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (text.len() == 1 || !text.starts_with('0'))).then_some(text)
}

fn minute(text: &str, name: &str) -> Result<Minute, Problem> {
    let text = restore_plus(text);
    let Some(ms) = parse_rfc3339(text.as_bytes()) else {
        let detail = format!("{name} is {}; it must be a time such as 2026-01-31T10:00:00Z", quoted(&text));
        return Err(Problem::new(ProblemKind::BadTime, detail).of(name));
    };
    if ms.rem_euclid(MINUTE_MS) != 0 || has_fraction(&text) {
        let detail = format!("{name} is {}; it must be the start of a minute, with 00 seconds", quoted(&text));
        return Err(Problem::new(ProblemKind::TimeNotOnMinute, detail).of(name));
    }
    Ok(Minute::of(ms))
}

/// Restores a `+` that was not written as `%2B` and arrived as a space. At the sign of the offset this is unambiguous.
fn restore_plus(text: &str) -> String {
    match text.len().checked_sub("+00:00".len()) {
        Some(at) if at > "2026-01-31".len() && text.as_bytes().get(at) == Some(&b' ') => {
            format!("{}+{}", &text[..at], &text[at + 1..])
        }
        _ => text.to_owned(),
    }
}

/// Whether a parsed time has a fraction of a second other than 0, at any precision.
fn has_fraction(text: &str) -> bool {
    text.split_once('.')
        .is_some_and(|(_, fraction)| fraction.bytes().take_while(u8::is_ascii_digit).any(|digit| digit != b'0'))
}

fn between(from: Minute, to: Minute) -> Result<Span, Problem> {
    if from >= to {
        let detail = "from must be before to; the range is half-open, so to is excluded";
        return Err(Problem::new(ProblemKind::SpanEmpty, detail).of(TO));
    }
    let long = to.0 - from.0;
    if long > i64::from(MINUTES_MAX) {
        let detail = format!("from and to are {long} minutes apart; at most {MINUTES_MAX} (a week) are allowed");
        return Err(Problem::new(ProblemKind::SpanTooLong, detail).of(TO));
    }
    Ok(Span::Between(from, to))
}

fn filters(given: &Given) -> Result<Filters, Problem> {
    let country = given.get(FILTER_COUNTRY).map(country).transpose()?;
    let ip = given.get(FILTER_IP).map(address).transpose()?;
    let user_id = given.get(FILTER_USER_ID).map(user_id).transpose()?;
    Ok(Filters { country, ip, user_id })
}

fn country(text: &str) -> Result<Country, Problem> {
    Country::parse_known(text.as_bytes()).ok_or_else(|| {
        let detail = format!(
            "filter_country is {}; it must be an ISO 3166-1 alpha-2 code such as US, XK (Kosovo), or ZZ (unknown)",
            quoted(text)
        );
        Problem::new(ProblemKind::BadCountry, detail).of(FILTER_COUNTRY)
    })
}

fn address(text: &str) -> Result<u128, Problem> {
    ip::parse(text.as_bytes()).ok_or_else(|| {
        let detail =
            format!("filter_ip is {}; it must be one IPv4 or IPv6 address without zone or prefix length", quoted(text));
        Problem::new(ProblemKind::BadIp, detail).of(FILTER_IP)
    })
}

fn user_id(text: &str) -> Result<String, Problem> {
    if (1..=USER_ID_BYTES_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    let detail = format!("filter_user_id is {} bytes long; it must be 1 to {USER_ID_BYTES_MAX}", text.len());
    Err(Problem::new(ProblemKind::BadUserId, detail).of(FILTER_USER_ID))
}
