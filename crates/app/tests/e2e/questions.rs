//! Both endpoints with every parameter, alone and combined, against a plain recount; and minutes from open to closed to
//! final.

use crate::expected::ranked;
use crate::site::{Serving, Site, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// 2025-05-01T10:00:00Z.
const TEN: i64 = 1_746_093_600_000;

const MINUTE: i64 = 60_000;

/// All clicks are within this many minutes from ten o'clock.
const MINUTES: i64 = 90;

const LINES: i64 = 20_000;

/// No input becomes idle, so that the frontiers follow the lines alone.
const NEVER_IDLE: &str = "[time]\nidle_timeout = \"1h\"\n";

/// Spans: the last minutes, hot ones, older ones, both together, still open, and before all clicks.
const SPANS: [&str; 9] = [
    "minutes=1",
    "minutes=7",
    "minutes=45",
    "minutes=10080",
    "from=2025-05-01T10:00:00Z&to=2025-05-01T10:10:00Z",
    "from=2025-05-01T12:20:00%2B02:00&to=2025-05-01T11:25:00Z",
    "from=2025-05-01T11:20:00Z&to=2025-05-01T11:40:00Z",
    "from=2025-05-01T09:00:00Z&to=2025-05-01T09:30:00Z",
    ALL,
];

/// All clicks.
const ALL: &str = "from=2025-05-01T10:00:00Z&to=2025-05-01T11:31:00Z";

const COUNTRIES: [&str; 5] = ["", "US", "de", "ZZ", "FR"];

const IPS: [&str; 5] = ["", "10.0.0.3", "::ffff:10.0.0.3", "2001:DB8:0::7", "192.0.2.1"];

const USERS: [&str; 4] = ["", "u3", "ü &=1", "nobody"];

/// An ad with many clicks, one with few, and an unknown one.
const ADS: [u64; 3] = [0, 117, 4_000_000_000];

struct Click {
    time: i64,
    ad: u64,
    user: String,
    /// In canonical form.
    ip: String,
    country: &'static str,
}

/// All clicks, one by one.
struct Recount(Vec<Click>);

/// A log and its content. Some lines are copies; countries and addresses are not always canonical.
fn generate() -> (String, Recount) {
    let mut random = 42_u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let (mut log, mut clicks, mut seen) = (String::new(), Vec::new(), HashSet::new());
    for line in 0..LINES {
        let time = TEN + line * (MINUTES * MINUTE) / LINES + below(4_000) as i64;
        // Squared, so that small numbers get most clicks; many of the others tie.
        let ad = below(1_000) * below(1_000) * 130 / 1_000_000;
        let user = if below(30) == 0 { "ü &=1".to_owned() } else { format!("u{}", below(40)) };
        let (ip, written) = match below(25) {
            number @ 0..10 => (format!("10.0.0.{number}"), format!("::ffff:10.0.0.{number}")),
            number @ 10..18 => (format!("10.0.0.{}", number - 10), format!("10.0.0.{}", number - 10)),
            number => (format!("2001:db8::{}", number - 15), format!("2001:0DB8::0:{}", number - 15)),
        };
        let (country, country_written) =
            [("US", "US"), ("US", "us"), ("DE", "DE"), ("BR", "Br"), ("ZZ", ""), ("ZZ", "??")][below(6) as usize];
        let text = format!(
            "{{\"click_timestamp\":{time},\"ad_id\":{ad},\"user_id\":\"{user}\",\"ip\":\"{written}\",\
             \"country\":\"{country_written}\"}}\n"
        );
        let copies = if below(20) == 0 { 2 } else { 1 };
        log.push_str(&text.repeat(copies));
        if seen.insert((time, ad, user.clone(), ip.clone())) {
            clicks.push(Click { time, ad, user, ip, country });
        }
    }
    (log, Recount(clicks))
}

fn rfc3339(ms: i64) -> String {
    adtally_model::time::rfc3339(ms)
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

/// A question in plain terms.
#[derive(Clone, Copy)]
struct Asked {
    span: &'static str,
    country: &'static str,
    ip: &'static str,
    user: &'static str,
    include_open: bool,
}

impl Asked {
    fn query(&self) -> String {
        let mut query = self.span.to_owned();
        for (name, value) in [("country", self.country), ("ip", self.ip), ("user_id", self.user)] {
            if !value.is_empty() {
                write!(query, "&filter_{name}={}", percent_encoded(value)).unwrap();
            }
        }
        if self.include_open {
            query.push_str("&include_open=true");
        }
        query
    }

    /// An answer without its revision, which it has unless it includes uncommitted clicks. A client that sends the
    /// revision back gets the same answer, byte for byte, until another epoch is committed.
    fn answer(&self, server: &Serving, path: &str) -> Value {
        let (_, text) = server.text(path);
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        let revision = answer.as_object_mut().and_then(|fields| fields.remove("revision"));
        match revision.as_ref().and_then(Value::as_str) {
            Some(revision) => {
                assert!(!self.include_open, "{path}");
                let (_, again) = server.text(&format!("{path}&revision={revision}"));
                assert!(again == text || !again.contains(revision), "{path}: {text} {again}");
            }
            None => assert_eq!((self.include_open, revision), (true, Some(Value::Null)), "{path}"),
        }
        answer
    }

    fn filters(&self) -> Value {
        let mut filters = json!({});
        let ip = match self.ip {
            "::ffff:10.0.0.3" => "10.0.0.3",
            "2001:DB8:0::7" => "2001:db8::7",
            ip => ip,
        };
        for (name, value) in [("country", &*self.country.to_uppercase()), ("ip", ip), ("user_id", self.user)] {
            if !value.is_empty() {
                filters[name] = value.into();
            }
        }
        filters
    }
}

impl Recount {
    fn newest(&self) -> i64 {
        self.0.iter().map(|click| click.time).max().unwrap()
    }

    /// The position of a frontier that is this far behind the newest click.
    fn frontier(&self, behind: i64) -> i64 {
        (self.newest() - behind) / MINUTE * MINUTE
    }

    fn state(&self, minute: i64) -> &'static str {
        if minute + MINUTE <= self.frontier(305_000) {
            "final"
        } else if minute + MINUTE <= self.frontier(5_000) {
            "closed"
        } else {
            "open"
        }
    }

    fn span(&self, asked: &Asked) -> (i64, i64) {
        let at = |hour: i64, minute: i64| TEN + ((hour - 10) * 60 + minute) * MINUTE;
        let to = if asked.include_open { self.newest() / MINUTE * MINUTE + MINUTE } else { self.frontier(5_000) };
        match SPANS.iter().position(|span| *span == asked.span).unwrap() {
            number @ 0..4 => (to - [1, 7, 45, 10_080][number] * MINUTE, to),
            4 => (at(10, 0), at(10, 10)),
            5 => (at(10, 20), at(11, 25)),
            6 => (at(11, 20), at(11, 40)),
            7 => (at(9, 0), at(9, 30)),
            _ => (at(10, 0), at(11, 31)),
        }
    }

    /// The clicks of a question by ad and minute.
    fn clicks(&self, asked: &Asked) -> BTreeMap<(u64, i64), u64> {
        let (from, to) = self.span(asked);
        let filters = asked.filters();
        let mut counts = BTreeMap::new();
        for click in &self.0 {
            let wanted = |name: &str, value: &str| filters.get(name).is_none_or(|filter| filter == value);
            let filtered =
                wanted("country", click.country) && wanted("ip", &click.ip) && wanted("user_id", &click.user);
            if (from..to).contains(&click.time) && filtered {
                *counts.entry((click.ad, click.time / MINUTE * MINUTE)).or_default() += 1;
            }
        }
        counts
    }

    /// The metadata of every answer.
    fn covered(&self, asked: &Asked) -> Value {
        let (from, to) = self.span(asked);
        json!({
            "from": rfc3339(from), "to": rfc3339(to), "state": self.state(to - MINUTE),
            "watermark": rfc3339(self.newest() - 5_000), "newest_click": rfc3339(self.newest()),
            "restated": false, "reconciled_to": null,
        })
    }

    fn check_top(&self, server: &Serving, asked: &Asked) {
        let mut ads: BTreeMap<u64, u64> = BTreeMap::new();
        for ((ad, _), clicks) in self.clicks(asked) {
            *ads.entry(ad).or_default() += clicks;
        }
        let mut expected = self.covered(asked);
        expected["filters"] = asked.filters();
        expected["ads"] = ranked(ads);
        let query = asked.query();
        assert_eq!(asked.answer(server, &format!("/ads/top100?{query}")), expected, "{query}");
    }

    fn check_ad(&self, server: &Serving, asked: &Asked, ad: u64, series: bool) {
        let counts = self.clicks(asked);
        let of = |minute: i64| counts.get(&(ad, minute)).copied().unwrap_or_default();
        let (from, to) = self.span(asked);
        let minutes: Vec<i64> = (from..to).step_by(MINUTE as usize).collect();
        let mut expected = self.covered(asked);
        expected["ad_id"] = ad.to_string().into();
        expected["filters"] = asked.filters();
        expected["clicks"] = minutes.iter().map(|minute| of(*minute)).sum::<u64>().into();
        let mut query = asked.query();
        if series {
            query.push_str("&series=true");
            let row =
                |minute: i64| json!({ "minute": rfc3339(minute), "clicks": of(minute), "state": self.state(minute) });
            expected["minutes"] = minutes.iter().map(|minute| row(*minute)).collect();
        }
        assert_eq!(asked.answer(server, &format!("/ads/{ad}/clicks?{query}")), expected, "{ad} {query}");
    }

    /// Checks every span with and without each single filter, and every `stride`-th of the combinations.
    fn check(&self, server: &Serving, stride: usize) {
        let mut number = 0;
        for span in SPANS {
            for country in COUNTRIES {
                for ip in IPS {
                    for user in USERS {
                        for include_open in [false, true] {
                            let asked = Asked { span, country, ip, user, include_open };
                            let filters = [country, ip, user].iter().filter(|filter| !filter.is_empty()).count();
                            number += 1;
                            if filters <= 1 || number % stride == 0 {
                                self.check_top(server, &asked);
                                self.check_ad(server, &asked, ADS[number % ADS.len()], number % 2 == 0);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Hot minutes, older ones whose epochs are not in the lake yet, and older ones in the lake.
#[test]
fn every_parameter() {
    let (log, recount) = generate();
    let lines = log.lines().count() as u64;
    let site = Site::new();
    let config = |lake_interval: &str| {
        site.write(
            "adtally.toml",
            format!(
                "{NEVER_IDLE}[epoch]\ninterval = \"100ms\"\nmax_lines = 1500\n\
                 [store]\nhot_minutes = 10\nlake_interval = \"{lake_interval}\"\n"
            ),
        );
    };
    config("1d");
    site.write("logs/clicks.log", "");
    let server = site.serve("logs --config adtally.toml");
    site.append("logs/clicks.log", &log);
    server.wait_read(lines);
    recount.check(&server, 47);
    // Killed, so that the epochs are pending again after the restart.
    server.kill();
    let server = site.serve("logs --config adtally.toml");
    recount.check(&server, 97);
    server.stop();
    // Now the lake contains everything; all but ten minutes come from it.
    config("1s");
    let server = site.serve("logs --config adtally.toml");
    recount.check(&server, 41);
}

/// Visible clicks stay visible while they move from pending epochs to the lake and out of memory.
#[test]
fn answers_never_waver_while_the_lake_catches_up() {
    let (log, recount) = generate();
    let site = Site::new();
    let config = "[epoch]\ninterval = \"100ms\"\nmax_lines = 200\n[store]\nhot_minutes = 1\nlake_interval = \"1s\"\n";
    site.write("adtally.toml", format!("{NEVER_IDLE}{config}"));
    site.write("logs/clicks.log", "");
    let server = site.serve("logs --config adtally.toml");
    let all = Asked { span: ALL, country: "", ip: "", user: "", include_open: false };
    let questions = [
        Asked { user: "u3", ..all },
        all,
        Asked { ip: "10.0.0.3", include_open: true, ..all },
        Asked { country: "US", ..all },
        Asked { country: "US", ip: "2001:DB8:0::7", ..all },
    ];
    let seen = |asked: &Asked| {
        let answer = server.get(&format!("/ads/top100?{}", asked.query()));
        answer["ads"].as_array().unwrap().iter().map(|row| row["clicks"].as_u64().unwrap()).sum::<u64>()
    };
    let done = AtomicBool::new(false);
    let watch = |asked: &Asked| {
        let mut most = 0;
        while !done.load(Ordering::Relaxed) {
            let clicks = seen(asked);
            assert!(clicks >= most, "{clicks} clicks after {most}: {}", asked.query());
            most = clicks;
        }
    };
    std::thread::scope(|scope| {
        // Concurrently, so that some ask exactly during a commit.
        for asked in &questions {
            scope.spawn(|| watch(asked));
        }
        // The time of ten lake commits, with many small epochs.
        let pieces: Vec<&str> = log.split_inclusive('\n').collect();
        for piece in pieces.chunks(pieces.len() / 100 + 1) {
            site.append("logs/clicks.log", piece.concat());
            std::thread::sleep(Duration::from_millis(100));
        }
        done.store(true, Ordering::Relaxed);
    });
    server.wait_read(log.lines().count() as u64);
    for asked in &questions {
        recount.check_top(&server, asked);
    }
    // After a crash the lake catches up at once, while questions are already answered.
    server.kill();
    let server = site.serve("logs --config adtally.toml");
    for asked in questions.iter().cycle().take(50) {
        recount.check_top(&server, asked);
    }
}

#[test]
fn before_any_click() {
    let site = Site::new();
    site.write("logs/clicks.log", "");
    let server = site.serve("logs");
    let nothing = json!({
        "from": null, "to": null, "state": "open", "restated": false, "reconciled_to": null, "watermark": null,
        "newest_click": null,
    });
    let without_revision = |path: String| {
        let mut answer = server.get(&path);
        answer.as_object_mut().and_then(|fields| fields.remove("revision")).unwrap();
        answer
    };
    for open in ["", "&include_open=true"] {
        let mut expected = nothing.clone();
        expected["filters"] = json!({});
        expected["ads"] = json!([]);
        assert_eq!(without_revision(format!("/ads/top100?minutes=5{open}")), expected);
        let mut expected = nothing.clone();
        expected["filters"] = json!({});
        expected["ad_id"] = "7".into();
        expected["clicks"] = 0.into();
        expected["minutes"] = json!([]);
        assert_eq!(without_revision(format!("/ads/7/clicks?minutes=5&series=true{open}")), expected);
    }
    let expected = json!({ "ready": true, "problems": [], "notes": [] });
    let ready = wait_for("readiness", || Some(server.get("/readyz")).filter(|ready| ready["ready"] == true));
    assert_eq!(ready, expected);
}

fn line(at: i64, user: u32) -> String {
    format!(
        "{{\"click_timestamp\":{at},\"ad_id\":7,\"user_id\":{user},\"ip\":\"10.0.0.{}\",\"country\":\"US\"}}\n",
        user % 2
    )
}

/// A minute is open, then closed, then final. Open clicks show before the commit, and again after a crash.
#[test]
fn from_open_to_closed_to_final() {
    let site = Site::new();
    site.write("adtally.toml", format!("{NEVER_IDLE}[epoch]\ninterval = \"10m\"\n"));
    site.write("clicks.log", (0..20).map(|user| line(TEN + 1_000 + i64::from(user), user)).collect::<String>());
    let server = site.serve("clicks.log --config adtally.toml");
    let ad = |server: &Serving, more: &str| server.get(&format!("/ads/7/clicks?minutes=1{more}"));
    let open = |server: &Serving, clicks: u64| {
        wait_for("clicks that are open", || {
            let answer = ad(server, "&include_open=true&series=true");
            (answer["clicks"] == clicks).then_some(answer)
        })
    };
    // The first sixteen lines set a watermark, which passes the previous minute, so they are committed.
    server.wait_read(20);
    site.append("clicks.log", (20..24).map(|user| line(TEN + 2_000, user)).collect::<String>());
    // Open: visible with `include_open`, under every filter, and not without it.
    let answer = open(&server, 24);
    assert_eq!((&answer["from"], &answer["to"]), (&json!("2025-05-01T10:00:00Z"), &json!("2025-05-01T10:01:00Z")));
    assert_eq!((&answer["state"], &answer["newest_click"]), (&json!("open"), &json!("2025-05-01T10:00:02Z")));
    assert_eq!(answer["minutes"], json!([{ "minute": "2025-05-01T10:00:00Z", "clicks": 24, "state": "open" }]));
    assert_eq!(answer["watermark"], "2025-05-01T09:59:56.019Z", "that of the last commit");
    for (filter, clicks) in
        [("ip=10.0.0.1", 12), ("user_id=3", 1), ("user_id=23", 1), ("country=US", 24), ("country=DE", 0)]
    {
        assert_eq!(ad(&server, &format!("&include_open=true&filter_{filter}"))["clicks"], clicks, "{filter}");
    }
    let answer = ad(&server, "");
    assert_eq!((&answer["clicks"], &answer["to"]), (&json!(0), &json!("2025-05-01T09:59:00Z")));
    assert_eq!(answer["newest_click"], "2025-05-01T10:00:01.019Z", "the newest that is committed");
    assert_eq!(server.get("/ledger")["read"], 20);
    // Not committed: lost in a crash, and read again.
    server.kill();
    let server = site.serve("clicks.log --config adtally.toml");
    open(&server, 24);
    // Closed: by a click of the next minute, five seconds beyond, and its commit.
    site.append("clicks.log", line(TEN + MINUTE + 5_001, 50));
    server.wait_read(25);
    let answer = ad(&server, "");
    assert_eq!((&answer["clicks"], &answer["state"]), (&json!(24), &json!("closed")));
    assert_eq!(answer["to"], "2025-05-01T10:01:00Z");
    assert_eq!(answer["watermark"], "2025-05-01T10:01:00.001Z");
    // A closed minute can change: a click within the allowed lateness is counted, at the next commit.
    site.append("clicks.log", line(TEN + 59_999, 51));
    open(&server, 1);
    assert_eq!(ad(&server, "")["clicks"], 24);
    site.append("clicks.log", line(TEN + 2 * MINUTE + 5_001, 52));
    server.wait_read(27);
    let between = "/ads/7/clicks?from=2025-05-01T10:00:00Z&to=2025-05-01T10:01:00Z";
    assert_eq!(server.get(between)["clicks"], 25);
    assert_eq!(server.get(between)["state"], "closed");
    // Final: another five minutes later. New clicks of that minute are late.
    site.append("clicks.log", line(TEN + 6 * MINUTE + 5_001, 53));
    server.wait_read(28);
    assert_eq!(server.get(between)["state"], "final");
    site.append("clicks.log", line(TEN + 30_000, 54) + &line(TEN + 7 * MINUTE + 5_001, 55));
    assert_eq!(server.wait_read(30)["late"], 1);
    let answer = server.get(&format!("{between}&series=true&include_open=true"));
    assert_eq!((&answer["clicks"], &answer["state"]), (&json!(25), &json!("final")));
    let states = server.get("/ads/7/clicks?minutes=8&include_open=true&series=true");
    let states: Vec<&str> =
        states["minutes"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["final", "final", "closed", "closed", "closed", "closed", "closed", "open"]);
}

/// When nothing comes any more, the clock closes minutes, and later makes them final.
#[test]
fn fault_22_idle_inputs_let_the_clock_pass() {
    let site = Site::new();
    site.write(
        "adtally.toml",
        "[time]\nidle_timeout = \"1s\"\nidle_finality = \"2s\"\n[epoch]\ninterval = \"100ms\"\n",
    );
    site.write("clicks.log", (0..20).map(|user| line(TEN + 1_000 + i64::from(user), user)).collect::<String>());
    let server = site.serve("clicks.log --config adtally.toml");
    server.wait_read(20);
    let between = "/ads/7/clicks?from=2025-05-01T10:00:00Z&to=2025-05-01T10:01:00Z";
    for state in ["closed", "final"] {
        let seen = |answer: &Value| answer["state"] == state || answer["state"] == "final";
        let answer = wait_for(state, || Some(server.get(between)).filter(seen));
        assert_eq!(answer["clicks"], 20);
    }
    // The last minutes now follow the clock; the clock makes nothing final beyond the newest click's minute.
    let last = server.get("/ads/7/clicks?minutes=1");
    assert_eq!((&last["clicks"], &last["state"]), (&json!(0), &json!("closed")));
    assert!(last["to"].as_str().unwrap() > "2025-05-01T10:02:00Z", "{last}");
    let partition = &server.get("/ledger")["partitions"][0];
    assert_eq!(partition["final"], "2025-05-01T10:01:00Z");
    // A file that is added later is counted nevertheless.
    site.append("clicks.log", line(TEN + MINUTE, 60));
    assert_eq!(server.wait_read(21)["counted"], 21);
}
