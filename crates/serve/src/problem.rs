//! Problem documents (RFC 9457): what went wrong, in words that the client's user can act on.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use strum::{EnumMessage, EnumProperty, IntoStaticStr, VariantArray};

/// The media type of problem documents.
const MEDIA_TYPE: &str = "application/problem+json";

/// Maximum characters of a value from the client that are repeated in an answer.
const SHOWN_CHARS_MAX: usize = 64;

/// How long a client should wait, in seconds, if there are too many questions or connections: most take milliseconds.
const OVERLOAD_RETRY_S: u32 = 1;

/// How long a client should wait, in seconds, if a store cannot be read: outages rarely last less.
const OUTAGE_RETRY_S: u32 = 5;

/// How long a client should wait, in seconds, while the state is recovered: most recoveries last a second or two.
const RECOVERY_RETRY_S: u32 = 1;

/// All ways in which a request can fail, with status and title. The `type` is named after the variant. The catalogue at
/// `/problems` has the same order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, EnumMessage, EnumProperty, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum ProblemKind {
    #[strum(props(status = 404), message = "There is no such endpoint")]
    UnknownRoute,
    #[strum(props(status = 405), message = "The endpoint does not support this method")]
    MethodNotAllowed,
    #[strum(props(status = 400), message = "The ad is not a number from 0 to 9223372036854775807")]
    BadAdId,
    #[strum(props(status = 400), message = "The question has no time range")]
    SpanMissing,
    #[strum(props(status = 400), message = "minutes is not a number")]
    BadMinutes,
    #[strum(props(status = 400), message = "minutes is not from 1 to 10080")]
    MinutesOutOfRange,
    #[strum(props(status = 400), message = "The question has two time ranges")]
    SpanGivenTwice,
    #[strum(props(status = 400), message = "The question has only one of from and to")]
    SpanHalfGiven,
    #[strum(props(status = 400), message = "The time is not RFC 3339 with an offset")]
    BadTime,
    #[strum(props(status = 400), message = "The time is not the start of a minute")]
    TimeNotOnMinute,
    #[strum(props(status = 400), message = "from is not before to")]
    SpanEmpty,
    #[strum(props(status = 400), message = "The question covers more than 10080 minutes")]
    SpanTooLong,
    #[strum(props(status = 400), message = "The country is not a known code")]
    BadCountry,
    #[strum(props(status = 400), message = "The address is not IPv4 or IPv6")]
    BadIp,
    #[strum(props(status = 400), message = "The user is not 1 to 128 bytes long")]
    BadUserId,
    #[strum(props(status = 400), message = "The value is neither true nor false")]
    BadBoolean,
    #[strum(props(status = 400), message = "The text is not a revision")]
    BadRevision,
    #[strum(props(status = 400), message = "The value is neither a time nor a revision")]
    BadAsOf,
    #[strum(props(status = 400), message = "The revision belongs to another data directory")]
    UnknownRevision,
    #[strum(props(status = 400), message = "The endpoint has no such parameter")]
    UnknownParameter,
    #[strum(props(status = 400), message = "The parameter is given more than once")]
    RepeatedParameter,
    #[strum(props(status = 400), message = "The query is not percent-encoded UTF-8")]
    BadEncoding,
    #[strum(props(status = 400), message = "The question cannot be answered")]
    CannotBeAnswered,
    #[strum(props(status = 414), message = "The address is too long")]
    UriTooLong,
    #[strum(props(status = 431), message = "The headers are too large")]
    HeadersTooLarge,
    #[strum(props(status = 500), message = "Adtally failed to answer because of an internal error")]
    Internal,
    #[strum(props(status = 421), message = "Another node answers questions")]
    Misdirected,
    #[strum(props(status = 503), message = "Too many questions are being answered")]
    TooManyQuestions,
    #[strum(props(status = 503), message = "Too many connections are open")]
    TooManyConnections,
    #[strum(props(status = 503), message = "The answer took too long")]
    TimedOut,
    #[strum(props(status = 503), message = "A store that the answer needs cannot be read")]
    StoreUnavailable,
    #[strum(props(status = 503), message = "The revision has not been reached yet")]
    Behind,
    #[strum(props(status = 503), message = "The process is still recovering its state")]
    Recovering,
}

impl ProblemKind {
    /// Its status.
    pub(crate) fn status(self) -> StatusCode {
        let status = self.get_int("status").and_then(|status| u16::try_from(status).ok());
        // A test checks that every kind has a valid status.
        status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Its title in every document.
    fn title(self) -> &'static str {
        self.get_message().unwrap_or_default()
    }

    /// Its `type`: a reference to the catalogue on this server.
    pub(crate) fn uri(self) -> String {
        format!("/problems#{}", <&str>::from(self))
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
    /// A problem; `detail` says what was wrong with this request and how to correct it.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Problem { kind, detail: detail.into(), parameter: None, instance: None }
    }

    /// Names the parameter at fault.
    #[must_use]
    pub(crate) fn of(mut self, parameter: &str) -> Self {
        self.parameter = Some(cut(parameter));
        self
    }

    /// Names the occurrence, so that a client's report can be matched to the log entry.
    #[must_use]
    pub(crate) fn at(mut self, instance: String) -> Self {
        self.instance = Some(instance);
        self
    }

    /// The complete response for a connection that is closed after it, whatever the request.
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
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            instance: self.instance.as_deref(),
            parameter: self.parameter.as_deref(),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Its kind.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> ProblemKind {
        self.kind
    }
}

/// The document as sent; fields are in the order of RFC 9457, extensions last.
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
    let kinds = ProblemKind::VARIANTS.iter();
    kinds.map(|kind| CatalogueRow { uri: kind.uri(), status: kind.status().as_u16(), title: kind.title() }).collect()
}

/// A value from a client: quoted, truncated and without control characters.
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
