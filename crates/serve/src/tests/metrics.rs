//! Metrics in both text formats; a strict parser reads the classic one.

use super::{Bench, Reply};
use axum::body::Body;
use axum::http::Request;
use std::collections::{HashMap, HashSet};

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Samples that both formats have.
const SAMPLES: &[&str] = &[
    r#"adtally_lines_total{verdict="counted"} 4"#,
    r#"adtally_lines_total{verdict="duplicate"} 2"#,
    r#"adtally_lines_total{verdict="late"} 1"#,
    r#"adtally_lines_total{verdict="future"} 1"#,
    r#"adtally_lines_total{verdict="malformed"} 1"#,
    r#"adtally_lines_total{verdict="invalid"} 1"#,
    "adtally_lines_read_total 10",
    "adtally_conflicting_duplicates_total 1",
    "adtally_gap_bytes_total 5",
    "adtally_nul_bytes_total 3",
    "adtally_gap_offsets_total 6",
    "adtally_epochs_committed_total 3",
    "adtally_epoch_commit_seconds_sum 90.004",
    "adtally_epoch_commit_seconds_count 3",
    r#"adtally_epoch_commit_seconds_bucket{le="0.001"} 1"#,
    r#"adtally_epoch_commit_seconds_bucket{le="0.005"} 2"#,
    r#"adtally_epoch_commit_seconds_bucket{le="60.0"} 2"#,
    r#"adtally_epoch_commit_seconds_bucket{le="+Inf"} 3"#,
    r#"adtally_queue_depth{queue="read_ahead_bytes"} 2.0"#,
    r#"adtally_queue_capacity{queue="read_ahead_bytes"} 8.0"#,
    "adtally_watermark_lag_seconds 5.25",
    "adtally_lake_epochs_behind 1.0",
    r#"adtally_topic_lag_records{partition="7"} 12.0"#,
    r#"adtally_topic_unread_records{partition="7"} 9.0"#,
    "adtally_live_identities 4.0",
    "adtally_live_windows 2.0",
    "adtally_open_files 1.0",
    "adtally_ready 1.0",
    "adtally_questions_in_flight 0",
    "adtally_http_connections 0",
    "adtally_http_connections_refused_total 0",
    r#"adtally_build_info{version="VERSION"} 1"#,
    r#"adtally_http_requests_total{route="/ads/{ad_id}/clicks",status="200"} 1"#,
    r#"adtally_http_requests_total{route="/ads/{ad_id}/clicks",status="400"} 1"#,
    r#"adtally_http_requests_total{route="none",status="404"} 1"#,
    r#"adtally_http_request_seconds_count{route="/ads/{ad_id}/clicks"} 2"#,
];

/// A server that has answered a few requests.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.get("/ads/42/clicks?minutes=5&filter_user_id=somebody&filter_ip=203.0.113.7");
    bench.get("/ads/987654321/clicks");
    bench.get("/secret-path");
    bench
}

fn scrape(bench: &Bench, accept: &str) -> Reply {
    bench.send(Request::get("/metrics").header("accept", accept).body(Body::empty()).unwrap())
}

#[test]
fn metrics_tell_of_the_process_and_of_requests() {
    let bench = bench();
    for (accept, media_type) in [("*/*", CLASSIC), ("application/openmetrics-text", OPEN)] {
        let reply = scrape(&bench, accept);
        assert_eq!(reply.header("content-type"), Some(media_type));
        let lines: HashSet<&str> = reply.body.lines().collect();
        for sample in SAMPLES {
            let sample = sample.replace("VERSION", env!("CARGO_PKG_VERSION"));
            assert!(lines.contains(sample.as_str()), "{sample} is not in\n{}", reply.body);
        }
        assert!(!reply.body.contains("adtally_closed_lag_seconds "), "there is none yet");
        for private in ["somebody", "203.0.113.7", "987654321", "secret"] {
            assert!(!reply.body.contains(private), "{private} is in\n{}", reply.body);
        }
    }
}

#[test]
fn open_metrics_are_for_those_who_ask_for_them() {
    let bench = bench();
    let check = |accept: &str, expected: &str| {
        let reply = scrape(&bench, accept);
        assert_eq!(reply.header("content-type"), Some(expected), "{accept}");
        assert_eq!(reply.body.ends_with("\n# EOF\n"), expected == OPEN, "{accept}");
    };
    assert_eq!(bench.get("/metrics").header("content-type"), Some(CLASSIC), "without an Accept header");
    check("text/plain", CLASSIC);
    check("text/html,application/xhtml+xml,*/*;q=0.8", CLASSIC);
    check("application/openmetrics-text-not", CLASSIC);
    check("application/openmetrics-text", OPEN);
    check("Application/OpenMetrics-Text; version=0.0.1", OPEN);
    check("application/openmetrics-text;q=0", CLASSIC);
    check("application/openmetrics-text;q=0.3, text/plain;q=0.5", CLASSIC);
    // The header that Prometheus sends.
    check(
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
        OPEN,
    );
}

#[test]
fn the_classic_format_is_that_of_prometheus() {
    let bench = bench();
    let kinds = parse(&bench.get("/metrics").body);
    for (name, kind) in [
        ("adtally_lines_total", "counter"),
        ("adtally_http_requests_total", "counter"),
        ("adtally_build_info", "gauge"),
        ("adtally_http_connections", "gauge"),
        ("adtally_watermark_lag_seconds", "gauge"),
        ("adtally_epoch_commit_seconds", "histogram"),
        ("adtally_http_request_seconds", "histogram"),
    ] {
        assert_eq!(kinds.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert!(std::panic::catch_unwind(|| parse(&scrape(&self::bench(), OPEN).body)).is_err(), "the parser is strict");
}

/// Parses the text format, version 0.0.4, strictly; returns the type of each family.
fn parse(text: &str) -> HashMap<String, String> {
    assert!(text.ends_with('\n'));
    let mut kinds = HashMap::new();
    let mut series = HashSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(!help.is_empty() && !help.contains('\\'), "{line}");
        check_name(name);
        let typed = lines.next().unwrap_or_default();
        let kind = typed.strip_prefix("# TYPE ").and_then(|rest| rest.strip_prefix(name)).expect(typed).trim_start();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{typed}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{typed}");
        assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is described twice");
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (found, labels, value) = sample(line);
            assert!(series.insert((found.clone(), labels.clone())), "{line} is there twice");
            samples.push((found.strip_prefix(name).expect(line).to_owned(), labels, value));
        }
        if kind == "histogram" {
            check_histogram(name, &samples);
        } else {
            assert!(samples.iter().all(|(suffix, ..)| suffix.is_empty()), "{name}: {samples:?}");
            assert!(kind == "gauge" || samples.iter().all(|(.., value)| *value >= 0.0), "{name}: {samples:?}");
        }
    }
    kinds
}

type Labels = Vec<(String, String)>;

/// A sample: its name, its labels and its value.
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = value.replace("+Inf", "inf").parse().expect(line);
    let Some((name, labels)) = series.split_once('{') else {
        check_name(series);
        return (series.to_owned(), Vec::new(), value);
    };
    check_name(name);
    // None of our values contains a quote, a comma or a backslash.
    let labels = labels.strip_suffix('}').expect(line).split(',').map(|label| {
        let (name, value) = label.split_once('=').expect(line);
        check_name(name);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(line);
        assert!(!value.contains(['"', '\\']), "{line}");
        (name.to_owned(), value.to_owned())
    });
    (name.to_owned(), labels.collect(), value)
}

fn check_name(name: &str) {
    let word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    assert!(
        name.starts_with(|first: char| word(first) && !first.is_ascii_digit()) && name.chars().all(word),
        "{name:?}"
    );
}

/// Checks for each set of labels: rising buckets up to infinity, their sum, and a count equal to the last bucket.
fn check_histogram(name: &str, samples: &[(String, Labels, f64)]) {
    let mut buckets: HashMap<Labels, Vec<(f64, f64)>> = HashMap::new();
    let (mut sums, mut counts) = (HashMap::new(), HashMap::new());
    for (suffix, labels, value) in samples {
        let mut labels = labels.clone();
        match suffix.as_str() {
            "_bucket" => {
                let at = labels.iter().position(|label| label.0 == "le").expect("a bucket has a bound");
                let bound = labels.remove(at).1.replace("+Inf", "inf").parse().unwrap();
                buckets.entry(labels).or_default().push((bound, *value));
            }
            "_sum" => assert!(sums.insert(labels, *value).is_none()),
            "_count" => assert!(counts.insert(labels, *value).is_none()),
            _ => panic!("{name}{suffix} belongs to no histogram"),
        }
    }
    assert_eq!((buckets.len(), buckets.len()), (sums.len(), counts.len()), "{name}");
    for (labels, buckets) in buckets {
        assert!(buckets.is_sorted_by(|less, more| less.0 < more.0 && less.1 <= more.1), "{name}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&labels])), "{name}");
        assert!(sums.contains_key(&labels), "{name}");
    }
}
