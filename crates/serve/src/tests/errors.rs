//! Every problem once: the response to an invalid request, or to a request at a bad moment.

use super::fake::{Mood, report, revision};
use super::{Bench, Reply};
use crate::limits::Limits;
use crate::problem::ProblemKind;
use adtally_model::{Error, ErrorKind};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use std::time::Duration;

/// A request that is refused, with the kind of problem, the parameter at fault (or none) and the detail.
type Refused = (&'static str, ProblemKind, &'static str, &'static str);

const AD_ID_RULE: &str = "it must be a number from 0 to 9223372036854775807 without sign or leading zero";

/// Requests that are refused because of their content.
const REFUSED: &[Refused] = &[
    ("/ads", ProblemKind::UnknownRoute, "", r#"there is nothing at "/ads"; / lists the endpoints"#),
    ("/ads/x/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", r#"ad_id is "x"; {AD_ID_RULE}"#),
    (
        "/ads/42/clicks",
        ProblemKind::SpanMissing,
        "minutes",
        "give minutes=M (the last M minutes, 1 to 10080), or from and to (RFC 3339)",
    ),
    (
        "/ads/top100?minutes=five",
        ProblemKind::BadMinutes,
        "minutes",
        r#"minutes is "five"; it must be a number from 1 to 10080"#,
    ),
    (
        "/ads/top100?minutes=1000000000",
        ProblemKind::MinutesOutOfRange,
        "minutes",
        r#"minutes is "1000000000"; it must be from 1 to 10080 (a week)"#,
    ),
    (
        "/ads/top100?minutes=5&from=2026-01-31T10:00:00Z&to=2026-01-31T11:00:00Z",
        ProblemKind::SpanGivenTwice,
        "minutes",
        "minutes cannot be combined with from or to; give minutes, or from and to",
    ),
    ("/ads/top100?from=2026-01-31T10:00:00Z", ProblemKind::SpanHalfGiven, "to", "from is given without to; give both"),
    (
        "/ads/top100?from=yesterday&to=2026-01-31T11:00:00Z",
        ProblemKind::BadTime,
        "from",
        r#"from is "yesterday"; it must be a time such as 2026-01-31T10:00:00Z"#,
    ),
    (
        "/ads/top100?from=2026-01-31T10:00:30Z&to=2026-01-31T11:00:00Z",
        ProblemKind::TimeNotOnMinute,
        "from",
        r#"from is "2026-01-31T10:00:30Z"; it must be the start of a minute, with 00 seconds"#,
    ),
    (
        "/ads/top100?from=2026-01-31T11:00:00Z&to=2026-01-31T11:00:00Z",
        ProblemKind::SpanEmpty,
        "to",
        "from must be before to; the range is half-open, so to is excluded",
    ),
    (
        "/ads/top100?from=2026-01-24T10:00:00Z&to=2026-01-31T10:01:00Z",
        ProblemKind::SpanTooLong,
        "to",
        "from and to are 10081 minutes apart; at most 10080 (a week) are allowed",
    ),
    (
        "/ads/top100?minutes=5&filter_country=UK",
        ProblemKind::BadCountry,
        "filter_country",
        r#"filter_country is "UK"; it must be an ISO 3166-1 alpha-2 code such as US, XK (Kosovo), or ZZ (unknown)"#,
    ),
    (
        "/ads/top100?minutes=5&filter_ip=10.0.0.0/8",
        ProblemKind::BadIp,
        "filter_ip",
        r#"filter_ip is "10.0.0.0/8"; it must be one IPv4 or IPv6 address without zone or prefix length"#,
    ),
    (
        "/ads/top100?minutes=5&filter_user_id=",
        ProblemKind::BadUserId,
        "filter_user_id",
        "filter_user_id is 0 bytes long; it must be 1 to 128",
    ),
    (
        "/ads/top100?minutes=5&include_open=yes",
        ProblemKind::BadBoolean,
        "include_open",
        r#"include_open is "yes"; it must be true or false"#,
    ),
    (
        "/ads/top100?minutes=5&revision=7",
        ProblemKind::BadRevision,
        "revision",
        r#"revision is "7"; send the revision of an earlier answer unchanged"#,
    ),
    (
        "/ads/top100?minutes=5&as_of=yesterday",
        ProblemKind::BadAsOf,
        "as_of",
        r#"as_of is "yesterday"; it must be a time such as 2026-01-31T10:00:00Z, or the revision of an earlier answer"#,
    ),
    (
        "/ads/top100?minutes=5&revision=AQEABwE",
        ProblemKind::UnknownRevision,
        "revision",
        "the revision belongs to another epoch log; ask without a revision",
    ),
    (
        "/ads/top100?minutes=5&country=US",
        ProblemKind::UnknownParameter,
        "country",
        r#"there is no parameter "country"; this endpoint accepts minutes, from, to, filter_country, filter_ip, filter_user_id, include_open, revision, as_of"#,
    ),
    (
        "/ads/top100?minutes=5&minutes=5",
        ProblemKind::RepeatedParameter,
        "minutes",
        "minutes is given more than once; give it once",
    ),
    (
        "/ads/top100?minutes=5&filter_user_id=100%",
        ProblemKind::BadEncoding,
        "filter_user_id",
        r#""100%" is not percent-encoded UTF-8; write a literal % as %25"#,
    ),
    // From here on kinds repeat: other requests that cause them.
    ("/ads/", ProblemKind::UnknownRoute, "", r#"there is nothing at "/ads/"; / lists the endpoints"#),
    (
        "/ads/42/clicks/?minutes=5",
        ProblemKind::UnknownRoute,
        "",
        r#"there is nothing at "/ads/42/clicks/"; / lists the endpoints"#,
    ),
    ("/ads/top100/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", r#"ad_id is "top100"; {AD_ID_RULE}"#),
    ("/ads/-1/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", r#"ad_id is "-1"; {AD_ID_RULE}"#),
    ("/ads/042/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", r#"ad_id is "042"; {AD_ID_RULE}"#),
    (
        "/ads/9223372036854775808/clicks?minutes=5",
        ProblemKind::BadAdId,
        "ad_id",
        r#"ad_id is "9223372036854775808"; {AD_ID_RULE}"#,
    ),
    (
        "/ads/99999999999999999999999/clicks?minutes=5",
        ProblemKind::BadAdId,
        "ad_id",
        r#"ad_id is "99999999999999999999999"; {AD_ID_RULE}"#,
    ),
    ("/ads/%ff/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", "ad_id is \"\u{fffd}\"; {AD_ID_RULE}"),
    ("/ads/4%00%0a2/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", "ad_id is \"4\u{fffd}\u{fffd}2\"; {AD_ID_RULE}"),
    ("/ads/42%20OR%201=1/clicks?minutes=5", ProblemKind::BadAdId, "ad_id", r#"ad_id is "42 OR 1=1"; {AD_ID_RULE}"#),
    (
        "/ads/top100?include_open=true&filter_country=US",
        ProblemKind::SpanMissing,
        "minutes",
        "give minutes=M (the last M minutes, 1 to 10080), or from and to (RFC 3339)",
    ),
    (
        "/ads/top100?minutes=",
        ProblemKind::BadMinutes,
        "minutes",
        r#"minutes is ""; it must be a number from 1 to 10080"#,
    ),
    (
        "/ads/top100?minutes=-5",
        ProblemKind::BadMinutes,
        "minutes",
        r#"minutes is "-5"; it must be a number from 1 to 10080"#,
    ),
    (
        "/ads/top100?minutes=5.0",
        ProblemKind::BadMinutes,
        "minutes",
        r#"minutes is "5.0"; it must be a number from 1 to 10080"#,
    ),
    (
        "/ads/top100?minutes=5;DROP%20TABLE%20clicks",
        ProblemKind::BadMinutes,
        "minutes",
        r#"minutes is "5;DROP TABLE clicks"; it must be a number from 1 to 10080"#,
    ),
    (
        "/ads/top100?minutes=0",
        ProblemKind::MinutesOutOfRange,
        "minutes",
        r#"minutes is "0"; it must be from 1 to 10080 (a week)"#,
    ),
    (
        "/ads/top100?minutes=10081",
        ProblemKind::MinutesOutOfRange,
        "minutes",
        r#"minutes is "10081"; it must be from 1 to 10080 (a week)"#,
    ),
    (
        "/ads/top100?minutes=99999999999999999999999999",
        ProblemKind::MinutesOutOfRange,
        "minutes",
        r#"minutes is "99999999999999999999999999"; it must be from 1 to 10080 (a week)"#,
    ),
    (
        "/ads/top100?minutes=5&to=2026-01-31T11:00:00Z",
        ProblemKind::SpanGivenTwice,
        "minutes",
        "minutes cannot be combined with from or to; give minutes, or from and to",
    ),
    ("/ads/top100?to=2026-01-31T10:00:00Z", ProblemKind::SpanHalfGiven, "from", "to is given without from; give both"),
    (
        "/ads/top100?from=2026-01-31T10:00:00Z&to=2026-01-31T11:00:00",
        ProblemKind::BadTime,
        "to",
        r#"to is "2026-01-31T11:00:00"; it must be a time such as 2026-01-31T10:00:00Z"#,
    ),
    (
        "/ads/top100?from=2026-02-30T10:00:00Z&to=2026-03-01T11:00:00Z",
        ProblemKind::BadTime,
        "from",
        r#"from is "2026-02-30T10:00:00Z"; it must be a time such as 2026-01-31T10:00:00Z"#,
    ),
    (
        "/ads/top100?from=%C3%A4%20%C3%A4%20%C3%A4%C3%A4%C3%A4%C3%A4&to=1",
        ProblemKind::BadTime,
        "from",
        r#"from is "ä ä ääää"; it must be a time such as 2026-01-31T10:00:00Z"#,
    ),
    (
        "/ads/top100?from=2026-01-31T10:00:00Z&to=2026-01-31T11:00:00.00001Z",
        ProblemKind::TimeNotOnMinute,
        "to",
        r#"to is "2026-01-31T11:00:00.00001Z"; it must be the start of a minute, with 00 seconds"#,
    ),
    (
        "/ads/top100?from=2026-01-31T11:00:00Z&to=2026-01-31T11:00:00%2B01:00",
        ProblemKind::SpanEmpty,
        "to",
        "from must be before to; the range is half-open, so to is excluded",
    ),
    (
        "/ads/top100?from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:00Z",
        ProblemKind::SpanTooLong,
        "to",
        "from and to are 5259491999 minutes apart; at most 10080 (a week) are allowed",
    ),
    (
        "/ads/top100?minutes=5&filter_country=",
        ProblemKind::BadCountry,
        "filter_country",
        r#"filter_country is ""; it must be an ISO 3166-1 alpha-2 code such as US, XK (Kosovo), or ZZ (unknown)"#,
    ),
    (
        "/ads/top100?minutes=5&filter_country=US'%20OR%20''='",
        ProblemKind::BadCountry,
        "filter_country",
        r#"filter_country is "US' OR ''='"; it must be an ISO 3166-1 alpha-2 code such as US, XK (Kosovo), or ZZ (unknown)"#,
    ),
    (
        "/ads/top100?minutes=5&filter_ip=",
        ProblemKind::BadIp,
        "filter_ip",
        r#"filter_ip is ""; it must be one IPv4 or IPv6 address without zone or prefix length"#,
    ),
    (
        "/ads/top100?minutes=5&filter_ip=fe80::1%25eth0",
        ProblemKind::BadIp,
        "filter_ip",
        r#"filter_ip is "fe80::1%eth0"; it must be one IPv4 or IPv6 address without zone or prefix length"#,
    ),
    (
        "/ads/42/clicks?minutes=5&series=1",
        ProblemKind::BadBoolean,
        "series",
        r#"series is "1"; it must be true or false"#,
    ),
    ("/ads/42/clicks?minutes=5&series", ProblemKind::BadBoolean, "series", r#"series is ""; it must be true or false"#),
    (
        "/ads/top100?minutes=5&series=true",
        ProblemKind::UnknownParameter,
        "series",
        r#"there is no parameter "series"; this endpoint accepts minutes, from, to, filter_country, filter_ip, filter_user_id, include_open, revision, as_of"#,
    ),
    (
        "/ads/42/clicks?Minutes=5",
        ProblemKind::UnknownParameter,
        "Minutes",
        r#"there is no parameter "Minutes"; this endpoint accepts minutes, from, to, filter_country, filter_ip, filter_user_id, include_open, revision, as_of, series"#,
    ),
    (
        "/ledger?minutes=5",
        ProblemKind::UnknownParameter,
        "minutes",
        r#"there is no parameter "minutes"; this endpoint accepts none"#,
    ),
    (
        "/ads/top100?minutes=5&filter_user_id=%ff",
        ProblemKind::BadEncoding,
        "filter_user_id",
        r#""%ff" is not percent-encoded UTF-8; write a literal % as %25"#,
    ),
];

/// The document of a problem.
pub(super) fn document(kind: ProblemKind, detail: &str) -> Value {
    let fixed = serde_json::to_value(crate::problem::catalogue()).unwrap();
    let fixed = fixed.as_array().unwrap().iter().find(|row| row["type"] == kind.uri()).unwrap();
    json!({"type": fixed["type"], "title": fixed["title"], "status": fixed["status"], "detail": detail})
}

pub(super) fn check(reply: &Reply, kind: ProblemKind, expected: &Value) {
    assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap(), *expected);
    assert_eq!(reply.status, kind.status());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("retry-after").is_some(), kind.status() == 503);
}

#[test]
fn fault_37_requests_are_refused_for_what_they_say() {
    let bench = Bench::new();
    for (uri, kind, parameter, detail) in REFUSED {
        let mut expected = document(*kind, &detail.replace("{AD_ID_RULE}", AD_ID_RULE));
        if !parameter.is_empty() {
            expected["parameter"] = json!(parameter);
        }
        check(&bench.get(uri), *kind, &expected);
    }
    assert_eq!(bench.store.asked(), [], "a question that is refused reaches no store");
}

#[test]
fn long_values_are_cut() {
    let bench = Bench::new();
    let user = "ä".repeat(64);
    let encoded = user.replace('ä', "%C3%A4");
    assert_eq!(bench.get(&format!("/ads/top100?minutes=5&filter_user_id={encoded}")).status, 200);
    let reply = bench.get(&format!("/ads/top100?minutes=5&filter_user_id={encoded}x"));
    let mut expected = document(ProblemKind::BadUserId, "filter_user_id is 129 bytes long; it must be 1 to 128");
    expected["parameter"] = json!("filter_user_id");
    check(&reply, ProblemKind::BadUserId, &expected);
    let reply = bench.get(&format!("/{}", "y".repeat(1_000)));
    let detail = format!("there is nothing at \"/{}…\"; / lists the endpoints", "y".repeat(63));
    check(&reply, ProblemKind::UnknownRoute, &document(ProblemKind::UnknownRoute, &detail));
}

/// Problems that the text of a request alone does not cause, each with its document.
pub(super) fn moments() -> Vec<(ProblemKind, Reply, Value)> {
    let question = "/ads/42/clicks?minutes=5";
    let mut found = Vec::new();
    let mut add = |kind, reply, detail: &str| found.push((kind, reply, document(kind, detail)));

    let post = Bench::new().send(Request::post(question).body(Body::empty()).unwrap());
    assert_eq!(post.header("allow"), Some("GET,HEAD"));
    add(ProblemKind::MethodNotAllowed, post, r#"the method is "POST"; this endpoint answers GET and HEAD"#);

    let long = Bench::new().get(&format!("/ads/top100?minutes={}", "5".repeat(9_000)));
    add(ProblemKind::UriTooLong, long, "path and query are 9020 bytes long; at most 8192 are allowed");

    let request = Request::get(question).header("cookie", "c".repeat(20_000)).body(Body::empty());
    let large = Bench::new().send(request.unwrap());
    add(ProblemKind::HeadersTooLarge, large, "the headers are 20006 bytes long; at most 16384 are allowed");

    let refused = Reply::of_wire(&crate::server::refusal(&Limits::default()));
    assert_eq!(refused.header("connection"), Some("close"));
    add(ProblemKind::TooManyConnections, refused, "512 connections are already open; try again in a moment");

    let bench = Bench::new();
    let seats: Vec<_> = (0..64).map(|_| bench.desk.gate.enter()).collect();
    let detail = "64 questions are already in flight; ask again in a moment";
    add(ProblemKind::TooManyQuestions, bench.get(question), detail);
    drop(seats);
    assert_eq!(bench.get(question).status, 200, "seats are given back");

    let bench = Bench::with(Limits { request_timeout: Duration::from_millis(500), ..Limits::default() });
    bench.store.is(Mood::Hangs);
    let detail = "no answer within 0.5 s; ask for fewer minutes, or try again later";
    add(ProblemKind::TimedOut, bench.get(question), detail);

    let bench = Bench::new();
    bench.store.is(Mood::Fails(|| Error::transient("cannot read /data/lake/clicks").because("disk on fire")));
    let detail = "an incomplete answer is never given; ask again later, and see /readyz for the cause";
    add(ProblemKind::StoreUnavailable, bench.get(question), detail);

    let bench = Bench::new();
    bench.store.is(Mood::Partial);
    let detail = "this worker has 2 of 6 partitions: ask a node that runs `adtally serve`";
    add(ProblemKind::Misdirected, bench.get(question), detail);
    assert_eq!(bench.store.asked(), [], "no partial answer is made");

    let bench = Bench::with(Limits { revision_timeout: Duration::ZERO, ..Limits::default() });
    let detail = "the revision was not reached within 0 s; ask again later, or ask another node";
    add(ProblemKind::Behind, bench.get(&format!("{question}&revision={}", revision(900))), detail);
    if let Some((_, _, behind)) = found.last_mut() {
        behind["parameter"] = json!("revision");
    }
    let mut add = |kind, reply, detail: &str| found.push((kind, reply, document(kind, detail)));

    let bench = Bench::new();
    bench.process.recovers("12 of 97 records are read");
    let detail = "12 of 97 records are read; /readyz reports when this is done";
    add(ProblemKind::Recovering, bench.get(question), detail);

    let bench = Bench::new();
    bench.store.is(Mood::Fails(|| Error::user("minutes before 2026-01-01T00:00:00Z are no longer kept")));
    let detail = "minutes before 2026-01-01T00:00:00Z are no longer kept";
    add(ProblemKind::CannotBeAnswered, bench.get(question), detail);

    let bench = Bench::new();
    bench.store.is(Mood::Fails(|| Error::internal("secret internals")));
    add(ProblemKind::Internal, bench.get(question), "the server's log has the reason, under failure=1");
    if let Some((_, _, internal)) = found.last_mut() {
        internal["instance"] = json!("/problems#internal-1");
    }
    found
}

#[test]
fn requests_are_refused_for_the_moment() {
    for (kind, reply, expected) in moments() {
        check(&reply, kind, &expected);
    }
}

#[test]
fn internals_stay_inside() {
    let bench = Bench::new();
    let mut failures = 0;
    let mut fails = |bench: &Bench, uri: &str| {
        failures += 1;
        let reply = bench.get(uri);
        let detail = format!("the server's log has the reason, under failure={failures}");
        let mut expected = document(ProblemKind::Internal, &detail);
        expected["instance"] = json!(format!("/problems#internal-{failures}"));
        check(&reply, ProblemKind::Internal, &expected);
    };
    bench.store.is(Mood::Panics);
    fails(&bench, "/ads/42/clicks?minutes=5");
    bench.store.is(Mood::Fails(|| Error::corrupt("secret: epoch 7 is torn")));
    fails(&bench, "/ads/top100?minutes=5&filter_ip=1.2.3.4");
    let mut broken = report();
    broken.partitions[0].ledger.read += 1;
    *bench.process.report.lock().unwrap() = broken;
    fails(&bench, "/ledger");
    // A lock poisoned by a panic makes the process's answers panic on the server's own threads.
    let process = bench.process.clone();
    let poisoned = std::thread::spawn(move || {
        let _held = process.readiness.lock();
        std::panic::resume_unwind(Box::new("poison"));
    });
    assert!(poisoned.join().is_err());
    fails(&bench, "/readyz");
    bench.store.is(Mood::Well);
    assert_eq!(bench.get("/ads/42/clicks?minutes=5").status, 200, "the next one is answered");
}

#[test]
fn other_failures_of_stores() {
    let bench = Bench::new();
    for error in [|| Error::external("disk gone"), || Error::new(ErrorKind::Fenced, "another process owns it")] {
        bench.store.is(Mood::Fails(error));
        let reply = bench.get("/ads/top100?minutes=5&filter_user_id=u");
        let detail = "an incomplete answer is never given; ask again later, and see /readyz for the cause";
        check(&reply, ProblemKind::StoreUnavailable, &document(ProblemKind::StoreUnavailable, detail));
    }
}

#[test]
fn many_headers_are_refused() {
    let ask = |count: usize| {
        let request = (0..count).fold(Request::get("/healthz"), |request, _| request.header("a", "b"));
        Bench::new().send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(ask(100).status, 200);
    let expected = document(ProblemKind::HeadersTooLarge, "there are 101 headers; at most 100 are allowed");
    check(&ask(101), ProblemKind::HeadersTooLarge, &expected);
}

/// The first document of every kind, for the description.
pub(super) fn documents() -> Vec<(ProblemKind, Value)> {
    let bench = Bench::new();
    let refused = REFUSED.iter().map(|(uri, kind, ..)| (*kind, serde_json::from_str(&bench.get(uri).body).unwrap()));
    let moments = moments().into_iter().map(|(kind, _, document)| (kind, document));
    let mut found: Vec<(ProblemKind, Value)> = Vec::new();
    for (kind, document) in refused.chain(moments) {
        if !found.iter().any(|(known, _)| *known == kind) {
            found.push((kind, document));
        }
    }
    found
}
