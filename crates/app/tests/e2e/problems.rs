//! Every error that a client can cause, once: a problem document that says what is wrong and what to do.

use crate::site::{Serving, Site};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Sends raw bytes; returns status, head and body.
fn send(server: &Serving, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Checks the status, the kind, the wrong parameter and a word of the detail.
fn check(server: &Serving, target: &str, expected: (u16, &str, &str, &str)) {
    check_request(server, &format!("GET {target} HTTP/1.1\r\nhost: adtally\r\nconnection: close\r\n\r\n"), expected);
}

fn check_request(server: &Serving, request: &str, (status, kind, parameter, word): (u16, &str, &str, &str)) {
    let (found, head, body) = send(server, request);
    let shown = &request[..request.len().min(200)];
    assert_eq!(found, status, "{shown}: {body}");
    assert!(head.contains("content-type: application/problem+json"), "{shown}: {head}");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["type"], format!("/problems#{kind}"), "{shown}: {document}");
    assert_eq!(document["status"], status, "{shown}: {document}");
    assert_eq!(document["parameter"].as_str().unwrap_or_default(), parameter, "{shown}: {document}");
    let (title, detail) = (document["title"].as_str().unwrap(), document["detail"].as_str().unwrap());
    assert!(!title.is_empty() && detail.contains(word), "{shown}: {document}");
}

#[test]
fn each_error_once() {
    let site = Site::new();
    site.write("clicks.log", "");
    let server = site.serve("clicks.log");
    let ad = |query: &str, expected: (&str, &str, &str)| {
        let (kind, parameter, word) = expected;
        check(&server, &format!("/ads/42/clicks{query}"), (400, kind, parameter, word));
        check(&server, &format!("/ads/top100{query}"), (400, kind, parameter, word));
    };
    check(&server, "/ads/42", (404, "unknown-route", "", "/ads/42"));
    check(&server, "/ads/0042/clicks?minutes=5", (400, "bad-ad-id", "ad_id", "0042"));
    check(&server, "/ads/9223372036854775808/clicks?minutes=5", (400, "bad-ad-id", "ad_id", "9223372036854775807"));
    check(&server, "/ads/42/clicks?minutes=5&series=1", (400, "bad-boolean", "series", "true or false"));
    ad("", ("span-missing", "minutes", "from and to"));
    ad("?minutes=five", ("bad-minutes", "minutes", "five"));
    ad("?minutes=0", ("minutes-out-of-range", "minutes", "1 to 10080"));
    ad("?minutes=10081", ("minutes-out-of-range", "minutes", "1 to 10080"));
    ad("?minutes=1000000000000000000000000", ("minutes-out-of-range", "minutes", "1 to 10080"));
    ad("?minutes=5&from=2025-05-01T10:00:00Z", ("span-given-twice", "minutes", "cannot be combined"));
    ad("?from=2025-05-01T10:00:00Z", ("span-half-given", "to", "give both"));
    ad("?to=2025-05-01T10:00:00Z", ("span-half-given", "from", "give both"));
    ad("?from=yesterday&to=2025-05-01T10:00:00Z", ("bad-time", "from", "yesterday"));
    ad("?from=2025-05-01T10:00:01Z&to=2025-05-01T11:00:00Z", ("time-not-on-minute", "from", "seconds"));
    ad("?from=2025-05-01T10:00:00Z&to=2025-05-01T10:00:00Z", ("span-empty", "to", "half-open"));
    ad("?from=2025-05-01T10:00:00Z&to=2025-05-08T10:01:00Z", ("span-too-long", "to", "10081 minutes"));
    ad("?minutes=5&filter_country=USA", ("bad-country", "filter_country", "USA"));
    ad("?minutes=5&filter_ip=10.0.0.0/8", ("bad-ip", "filter_ip", "prefix"));
    ad("?minutes=5&filter_user_id=", ("bad-user-id", "filter_user_id", "1 to 128"));
    ad(&format!("?minutes=5&filter_user_id={}", "x".repeat(129)), ("bad-user-id", "filter_user_id", "129"));
    ad("?minutes=5&include_open=yes", ("bad-boolean", "include_open", "yes"));
    ad("?minutes=5&filter_land=US", ("unknown-parameter", "filter_land", "filter_country"));
    ad("?minutes=5&minutes=6", ("repeated-parameter", "minutes", "minutes"));
    ad("?minutes=5&filter_user_id=%FF", ("bad-encoding", "filter_user_id", "UTF-8"));
    ad("?minutes=5'%20OR%201=1", ("bad-minutes", "minutes", "OR 1=1"));
    check(&server, "/ledger?partition=0", (400, "unknown-parameter", "partition", "partition"));
    let post = "POST /ads/top100?minutes=5 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    check_request(&server, post, (405, "method-not-allowed", "", "POST"));
    let long = format!("/ads/top100?minutes=5&filter_user_id={}", "x".repeat(10_000));
    check(&server, &long, (414, "uri-too-long", "", ""));
    let cookie = "x".repeat(20_000);
    let large = format!("GET /ledger HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n");
    check_request(&server, &large, (431, "headers-too-large", "", ""));
    // None of these requests did harm.
    assert_eq!(server.text("/healthz").0, 200);
    server.stop();
}
