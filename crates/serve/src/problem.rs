//! Problem documents (RFC 9457): what went wrong, in words that the person who asked can act on.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The media type of problem documents.
const MEDIA_TYPE: &str = "application/problem+json";

/// How many characters of a value that a client sent are repeated in an answer.
const SHOWN_CHARS_MAX: usize = 64;

/// How long a client should wait, in seconds, when too many questions or connections are there: most take
/// milliseconds.
const OVERLOAD_RETRY_S: u32 = 1;

/// How long a client should wait, in seconds, when a store cannot be read: outages rarely last less.
const OUTAGE_RETRY_S: u32 = 5;

/// How long a client should wait, in seconds, while the state is recovered: most recoveries last a second or two.
const RECOVERY_RETRY_S: u32 = 1;

/// Every way in which a request can fail. The order is that of the catalogue at `/problems`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProblemKind {
    UnknownRoute,
    MethodNotAllowed,
    BadAdId,
    SpanMissing,
    BadMinutes,
    MinutesOutOfRange,
    SpanGivenTwice,
    SpanHalfGiven,
    BadTime,
    TimeNotOnMinute,
    SpanEmpty,
    SpanTooLong,
    BadCountry,
    BadIp,
    BadUserId,
    BadBoolean,
    BadRevision,
    UnknownRevision,
    UnknownParameter,
    RepeatedParameter,
    BadEncoding,
    CannotBeAnswered,
    UriTooLong,
    HeadersTooLarge,
    Internal,
    TooManyQuestions,
    TooManyConnections,
    TimedOut,
    StoreUnavailable,
    Behind,
    Recovering,
}

impl ProblemKind {
    /// All of them, in the order of the catalogue.
    pub(crate) const ALL: [ProblemKind; 31] = [
        ProblemKind::UnknownRoute,
        ProblemKind::MethodNotAllowed,
        ProblemKind::BadAdId,
        ProblemKind::SpanMissing,
        ProblemKind::BadMinutes,
        ProblemKind::MinutesOutOfRange,
        ProblemKind::SpanGivenTwice,
        ProblemKind::SpanHalfGiven,
        ProblemKind::BadTime,
        ProblemKind::TimeNotOnMinute,
        ProblemKind::SpanEmpty,
        ProblemKind::SpanTooLong,
        ProblemKind::BadCountry,
        ProblemKind::BadIp,
        ProblemKind::BadUserId,
        ProblemKind::BadBoolean,
        ProblemKind::BadRevision,
        ProblemKind::UnknownRevision,
        ProblemKind::UnknownParameter,
        ProblemKind::RepeatedParameter,
        ProblemKind::BadEncoding,
        ProblemKind::CannotBeAnswered,
        ProblemKind::UriTooLong,
        ProblemKind::HeadersTooLarge,
        ProblemKind::Internal,
        ProblemKind::TooManyQuestions,
        ProblemKind::TooManyConnections,
        ProblemKind::TimedOut,
        ProblemKind::StoreUnavailable,
        ProblemKind::Behind,
        ProblemKind::Recovering,
    ];

    /// Its name in the `type`, its status and its title: the fixed part of every document of the kind.
    const fn fixed(self) -> (&'static str, StatusCode, &'static str) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            ProblemKind::UnknownRoute => ("unknown-route", StatusCode::NOT_FOUND, "There is no such endpoint"),
            ProblemKind::MethodNotAllowed => {
                ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The endpoint does not know this method")
            }
            ProblemKind::BadAdId => ("bad-ad-id", BAD, "The ad is not a number from 0 to 9223372036854775807"),
            ProblemKind::SpanMissing => ("span-missing", BAD, "The question does not say which minutes it is about"),
            ProblemKind::BadMinutes => ("bad-minutes", BAD, "The number of minutes is not a number"),
            ProblemKind::MinutesOutOfRange => {
                ("minutes-out-of-range", BAD, "The number of minutes is not from 1 to 10080")
            }
            ProblemKind::SpanGivenTwice => ("span-given-twice", BAD, "The question gives its minutes in two ways"),
            ProblemKind::SpanHalfGiven => ("span-half-given", BAD, "The question gives only one end of its minutes"),
            ProblemKind::BadTime => ("bad-time", BAD, "The time is not RFC 3339 with an offset"),
            ProblemKind::TimeNotOnMinute => ("time-not-on-minute", BAD, "The time is not the start of a minute"),
            ProblemKind::SpanEmpty => ("span-empty", BAD, "The end of the minutes is not after their start"),
            ProblemKind::SpanTooLong => ("span-too-long", BAD, "The question covers more than 10080 minutes"),
            ProblemKind::BadCountry => ("bad-country", BAD, "The country is not a known code"),
            ProblemKind::BadIp => ("bad-ip", BAD, "The address is not IPv4 or IPv6"),
            ProblemKind::BadUserId => ("bad-user-id", BAD, "The user is not 1 to 128 bytes long"),
            ProblemKind::BadBoolean => ("bad-boolean", BAD, "The value is neither true nor false"),
            ProblemKind::BadRevision => ("bad-revision", BAD, "The text is not a revision"),
            ProblemKind::UnknownRevision => ("unknown-revision", BAD, "The revision belongs to another data directory"),
            ProblemKind::UnknownParameter => ("unknown-parameter", BAD, "The endpoint does not know this parameter"),
            ProblemKind::RepeatedParameter => ("repeated-parameter", BAD, "The parameter is given more than once"),
            ProblemKind::BadEncoding => ("bad-encoding", BAD, "The query is not percent-encoded UTF-8"),
            ProblemKind::CannotBeAnswered => ("cannot-be-answered", BAD, "The question cannot be answered"),
            ProblemKind::UriTooLong => ("uri-too-long", StatusCode::URI_TOO_LONG, "The address is too long"),
            ProblemKind::HeadersTooLarge => {
                ("headers-too-large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large")
            }
            ProblemKind::Internal => {
                ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Adtally failed to answer; this is not your fault")
            }
            ProblemKind::TooManyQuestions => {
                ("too-many-questions", StatusCode::SERVICE_UNAVAILABLE, "Too many questions are being answered")
            }
            ProblemKind::TooManyConnections => {
                ("too-many-connections", StatusCode::SERVICE_UNAVAILABLE, "Too many connections are open")
            }
            ProblemKind::TimedOut => {
                ("timed-out", StatusCode::SERVICE_UNAVAILABLE, "The answer took longer than is allowed")
            }
            ProblemKind::StoreUnavailable => {
                ("store-unavailable", StatusCode::SERVICE_UNAVAILABLE, "A store that the answer needs cannot be read")
            }
            ProblemKind::Behind => ("behind", StatusCode::SERVICE_UNAVAILABLE, "The revision has not been reached yet"),
            ProblemKind::Recovering => {
                ("recovering", StatusCode::SERVICE_UNAVAILABLE, "The process has started and still recovers its state")
            }
        }
    }

    /// Its status.
    pub(crate) const fn status(self) -> StatusCode {
        self.fixed().1
    }

    /// Its `type`: a reference that leads to the catalogue on this same server.
    pub(crate) fn uri(self) -> String {
        format!("/problems#{}", self.fixed().0)
    }

    const fn retry_after_s(self) -> Option<u32> {
        match self {
            ProblemKind::TooManyQuestions | ProblemKind::TooManyConnections | ProblemKind::Behind => {
                Some(OVERLOAD_RETRY_S)
            }
            ProblemKind::TimedOut | ProblemKind::StoreUnavailable => Some(OUTAGE_RETRY_S),
            ProblemKind::Recovering => Some(RECOVERY_RETRY_S),
            _ => None,
        }
    }
}

/// One failed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    kind: ProblemKind,
    detail: String,
    parameter: Option<String>,
    instance: Option<String>,
}

impl Problem {
    /// A problem; `detail` says what was wrong with this very request and what to do about it.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Problem { kind, detail: detail.into(), parameter: None, instance: None }
    }

    /// Names the parameter at fault.
    #[must_use]
    pub(crate) fn of(mut self, parameter: &str) -> Self {
        self.parameter = Some(cut(parameter));
        self
    }

    /// Names the occurrence, so that the client's report leads to the line in the log.
    #[must_use]
    pub(crate) fn at(mut self, instance: String) -> Self {
        self.instance = Some(instance);
        self
    }

    /// The answer as it stands on a connection that is closed after it, whatever was asked.
    pub(crate) fn last_words(&self) -> Vec<u8> {
        let (status, body) = (self.kind.status(), self.document());
        let reason = status.canonical_reason().unwrap_or_default();
        let retry = self.kind.retry_after_s().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {MEDIA_TYPE}\r\n{retry}x-content-type-options: nosniff\r\n\
             cache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            status.as_u16(),
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    fn document(&self) -> Vec<u8> {
        let document = Document {
            uri: self.kind.uri(),
            title: self.kind.fixed().2,
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            instance: self.instance.as_deref(),
            parameter: self.parameter.as_deref(),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// What kind it is.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> ProblemKind {
        self.kind
    }
}

/// The document as it is sent; the order of the fields is that of RFC 9457, extensions last.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    uri: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.document()));
        *response.status_mut() = self.kind.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.kind.retry_after_s() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// One row of the catalogue of problems.
#[derive(Serialize)]
pub(crate) struct CatalogueRow {
    #[serde(rename = "type")]
    uri: String,
    status: u16,
    title: &'static str,
}

/// All problems that this server can answer with.
pub(crate) fn catalogue() -> Vec<CatalogueRow> {
    ProblemKind::ALL
        .iter()
        .map(|kind| CatalogueRow { uri: kind.uri(), status: kind.status().as_u16(), title: kind.fixed().2 })
        .collect()
}

/// A value that a client sent, quoted, cut and without control characters.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

fn cut(text: &str) -> String {
    let clean = |char: char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(clean).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
