//! Every endpoint and parameter, alone and combined.

use super::fake::{Asked, Mood, minute, report, revision};
use super::{Bench, Reply};
use adtally_engine::status::Readiness;
use adtally_model::{Country, ip};
use adtally_store::questions::{Filters, Question, Questions, Reached, Span};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};

const COVER: &str = r#""from":"2026-01-31T10:00:00Z","to":"2026-01-31T10:02:00Z","state":"closed","restated":false,"reconciled_to":null,"watermark":"2026-01-31T10:02:07.500Z","newest_click":"2026-01-31T10:02:12.345Z","revision":"AQEA_9335rzX6syI75mrxeiMkRED""#;
const NO_COVER: &str = r#""from":null,"to":null,"state":"open","restated":false,"reconciled_to":null,"watermark":null,"newest_click":null,"revision":"AQEA_9335rzX6syI75mrxeiMkRED""#;
const ADS: &str = r#""ads":[{"rank":1,"ad_id":"42","clicks":123},{"rank":2,"ad_id":"7","clicks":9}]"#;
const MINUTES: &str = r#""minutes":[{"minute":"2026-01-31T10:00:00Z","clicks":114,"state":"final"},{"minute":"2026-01-31T10:01:00Z","clicks":9,"state":"closed"}]"#;
const LEDGER: &str = r#""read":10,"counted":4,"duplicate":2,"late":1,"future":1,"malformed":1,"invalid":1,"conflicting_duplicates":1,"gap_bytes":5,"nul_bytes":3,"gap_offsets":6"#;

fn ok(reply: &Reply, expected: &str) {
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, expected));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

fn question(span: Span) -> Question {
    Question::about(span)
}

/// Every way to select minutes and clicks: the query, the resulting question, and the filters in the answer.
fn questions() -> Vec<(&'static str, Question, &'static str)> {
    let hour = Span::Between(minute("2026-01-31T10:00:00Z"), minute("2026-01-31T11:00:00Z"));
    let week = Span::Between(minute("2026-01-24T10:00:00Z"), minute("2026-01-31T10:00:00Z"));
    let last = question(Span::Last(5));
    let only = |filters: Filters| Question { filters, ..last.clone() };
    let us = Some(Country::parse(b"US"));
    let v4 = ip::parse(b"1.2.3.4");
    vec![
        ("minutes=5", last.clone(), ""),
        ("minutes=1", question(Span::Last(1)), ""),
        ("minutes=10080", question(Span::Last(10_080)), ""),
        ("from=2026-01-31T10:00:00Z&to=2026-01-31T11:00:00Z", question(hour), ""),
        ("to=2026-01-31T13:00:00.000%2B02:00&from=2026-01-31T12:00:00+02:00", question(hour), ""),
        ("from=2026-01-31t05:00:00-05:00&to=2026-01-31%2011:00:00z", question(hour), ""),
        ("from=2026-01-24T10:00:00Z&to=2026-01-31T10:00:00Z", question(week), ""),
        ("minutes=5&include_open=false", last.clone(), ""),
        ("minutes=5&include_open=true", Question { include_open: true, ..last.clone() }, ""),
        ("minutes=5&filter_country=us", only(Filters { country: us, ..Filters::default() }), r#""country":"US""#),
        (
            "minutes=5&filter_country=zz",
            only(Filters { country: Some(Country::UNKNOWN), ..Filters::default() }),
            r#""country":"ZZ""#,
        ),
        ("minutes=5&filter_ip=1.2.3.4", only(Filters { ip: v4, ..Filters::default() }), r#""ip":"1.2.3.4""#),
        ("minutes=5&filter_ip=::FFFF:1.2.3.4", only(Filters { ip: v4, ..Filters::default() }), r#""ip":"1.2.3.4""#),
        (
            "minutes=5&filter_ip=2001%3ADB8::0:1",
            only(Filters { ip: ip::parse(b"2001:db8::1"), ..Filters::default() }),
            r#""ip":"2001:db8::1""#,
        ),
        (
            "minutes=5&filter_user_id=%22'%3B+DROP+TABLE+clicks;--%C3%A4",
            only(Filters { user_id: Some("\"'; DROP TABLE clicks;--ä".into()), ..Filters::default() }),
            r#""user_id":"\"'; DROP TABLE clicks;--ä""#,
        ),
        (
            "filter_user_id=u&include_open=true&filter_ip=1.2.3.4&from=2026-01-31T10:00:00Z&filter_country=US&to=2026-01-31T11:00:00Z",
            Question {
                span: hour,
                filters: Filters { country: us, ip: v4, user_id: Some("u".into()) },
                include_open: true,
                as_of: None,
            },
            r#""country":"US","ip":"1.2.3.4","user_id":"u""#,
        ),
    ]
}

#[test]
fn an_ad_with_every_parameter() {
    let bench = Bench::new();
    for (query, asked, filters) in questions() {
        let told = format!(r#""ad_id":"42","clicks":123,{COVER},"filters":{{{filters}}}"#);
        ok(&bench.get(&format!("/ads/42/clicks?{query}")), &format!("{{{told}}}"));
        assert_eq!(bench.store.asked(), [Asked::Ad(42, asked.clone(), false)], "{query}");
        ok(&bench.get(&format!("/ads/42/clicks?series=true&{query}")), &format!("{{{told},{MINUTES}}}"));
        assert_eq!(bench.store.asked(), [Asked::Ad(42, asked, true)], "{query}");
    }
    for (path, ad_id) in [("0", 0), ("9223372036854775807", i64::MAX as u64), ("%34%32", 42)] {
        let reply = bench.get(&format!("/ads/{path}/clicks?minutes=5&series=false"));
        ok(&reply, &format!(r#"{{"ad_id":"{ad_id}","clicks":123,{COVER},"filters":{{}}}}"#));
        assert_eq!(bench.store.asked(), [Asked::Ad(ad_id, question(Span::Last(5)), false)]);
    }
}

#[test]
fn the_top_with_every_parameter() {
    let bench = Bench::new();
    for (query, asked, filters) in questions() {
        let expected = format!(r#"{{{COVER},"filters":{{{filters}}},{ADS}}}"#);
        ok(&bench.get(&format!("/ads/top100?{query}")), &expected);
        assert_eq!(bench.store.asked(), [Asked::Top(asked, 100)], "{query}");
    }
}

#[test]
fn before_any_click_there_are_nulls() {
    let bench = Bench::new();
    bench.store.is(Mood::Empty);
    ok(&bench.get("/ads/42/clicks?minutes=2"), &format!(r#"{{"ad_id":"42","clicks":0,{NO_COVER},"filters":{{}}}}"#));
    let series = format!(r#"{{"ad_id":"42","clicks":0,{NO_COVER},"filters":{{}},"minutes":[]}}"#);
    ok(&bench.get("/ads/42/clicks?minutes=2&series=true"), &series);
    ok(&bench.get("/ads/top100?minutes=2"), &format!(r#"{{{NO_COVER},"filters":{{}},"ads":[]}}"#));
}

/// A client that has seen an epoch elsewhere does not see an older one here.
#[test]
fn a_question_waits_until_its_revision_is_reached() {
    let bench = Bench::new();
    for number in 1..6 {
        let reply = bench.get(&format!("/ads/top100?minutes=2&revision={}", revision(number)));
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(bench.store.revision().reached(&revision(number)), Reached::Yes);
    }
}

#[test]
fn the_top_has_100_ads() {
    let bench = Bench::new();
    bench.store.is(Mood::Generous);
    let reply = bench.get("/ads/top100?minutes=2");
    assert!(reply.body.ends_with(r#"{"rank":100,"ad_id":"99","clicks":1}]}"#), "{}", reply.body);
}

/// An answer that is too long for memory has the same text.
#[test]
fn a_week_of_minutes_comes_in_pieces() {
    let bench = Bench::new();
    bench.store.is(Mood::Long);
    let reply = bench.get("/ads/42/clicks?minutes=10080&series=true");
    let minutes = vec![r#"{"minute":"2026-01-31T10:00:00Z","clicks":1,"state":"final"}"#; 10_080].join(",");
    ok(&reply, &format!(r#"{{"ad_id":"42","clicks":10080,{COVER},"filters":{{}},"minutes":[{minutes}]}}"#));
    assert_eq!(bench.desk.gate.in_flight(), 0);
}

#[test]
fn the_ledger() {
    let bench = Bench::new();
    let partition = |number: u32| {
        format!(
            r#"{{"partition":{number},"epoch":3,{LEDGER},"watermark":"2026-01-31T10:02:07.500Z","closed":"2026-01-31T10:02:00Z","final":null}}"#
        )
    };
    let input = format!(
        r#"{{"name":"/logs/a.ndjson","input":"/logs/a.ndjson","status":"idle","position":4096,"watermark":"2026-01-31T10:02:07.500Z",{LEDGER}}}"#
    );
    let one = format!(
        r#"{{{LEDGER},"partitions":[{}],"inputs":[{input}],"revision":"AQEA_9335rzX6syI75mrxeiMkRED"}}"#,
        partition(0)
    );
    ok(&bench.get("/ledger"), &one);

    let mut two = report();
    two.partitions.push(two.partitions[0].clone());
    two.partitions[1].partition = 1;
    two.inputs_left_off = 3;
    *bench.process.report.lock().unwrap() = two;
    let total = r#""read":20,"counted":8,"duplicate":4,"late":2,"future":2,"malformed":2,"invalid":2,"conflicting_duplicates":2,"gap_bytes":10,"nul_bytes":6,"gap_offsets":12"#;
    let (first, second) = (partition(0), partition(1));
    let expected = format!(
        r#"{{{total},"partitions":[{first},{second}],"inputs":[{input}],"inputs_left_off":3,"revision":"AQEA_9335rzX6syI75mrxeiMkRED"}}"#
    );
    ok(&bench.get("/ledger"), &expected);

    *bench.process.report.lock().unwrap() = Default::default();
    let zero = r#"{"read":0,"counted":0,"duplicate":0,"late":0,"future":0,"malformed":0,"invalid":0,"conflicting_duplicates":0,"gap_bytes":0,"nul_bytes":0,"gap_offsets":0,"partitions":[],"inputs":[],"revision":null}"#;
    ok(&bench.get("/ledger"), zero);
}

#[test]
fn alive_and_ready() {
    let bench = Bench::new();
    let reply = bench.get("/healthz");
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, "ok\n"));
    ok(&bench.get("/readyz"), r#"{"ready":true,"problems":[],"notes":["2 inputs are idle"]}"#);
    *bench.process.readiness.lock().unwrap() =
        Readiness { problems: vec!["the disk is full: free some space on /data".into()], notes: Vec::new() };
    let reply = bench.get("/readyz");
    let expected = r#"{"ready":false,"problems":["the disk is full: free some space on /data"],"notes":[]}"#;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, expected));
    *bench.process.readiness.lock().unwrap() = Readiness { problems: vec!["x".into(); 5_000], notes: Vec::new() };
    assert_eq!(bench.get("/readyz").body.matches("\"x\"").count(), 100);
    // Load balancers may append parameters.
    assert_eq!(bench.get("/healthz?probe=1").status, StatusCode::OK);
}

#[test]
fn head_is_get_without_the_body() {
    let bench = Bench::new();
    for route in crate::endpoints::ENDPOINTS {
        let got = bench.get(route.example);
        let head = bench.send(Request::head(route.example).body(Body::empty()).unwrap());
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""), "{}", route.path);
        assert_eq!(head.header("content-type"), got.header("content-type"), "{}", route.path);
        if route.path != "/metrics" {
            let length = got.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()), "{}", route.path);
        }
    }
}

#[test]
fn the_index_leads_to_working_addresses() {
    let bench = Bench::new();
    let index: serde_json::Value = serde_json::from_str(&bench.get("/").body).unwrap();
    let endpoints = index["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), crate::endpoints::ENDPOINTS.len());
    for endpoint in endpoints {
        assert_eq!(bench.get(endpoint["example"].as_str().unwrap()).status, StatusCode::OK, "{endpoint}");
    }
}

#[test]
fn every_route_refuses_other_methods() {
    let bench = Bench::new();
    for route in crate::endpoints::ENDPOINTS {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE] {
            let request = Request::builder().method(&method).uri(route.example).body(Body::empty()).unwrap();
            let reply = bench.send(request);
            assert_eq!(reply.status, 405, "{method} {}", route.path);
            assert_eq!(reply.header("allow"), Some("GET,HEAD"));
        }
    }
    let request = Request::builder().method("VERY-odd").uri("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(bench.send(request).status, 404);
}
