//! Explains to the user what the demo shows: sample questions with their answers, and a status line.

use super::{DemoArgs, LOOK_MS};
use crate::terminal;
use adtally_engine::clock::{Clock, SystemClock};
use adtally_engine::report::Report;
use adtally_engine::status::Status;
use adtally_model::ledger::thousands;
use adtally_store::embedded::Embedded;
use adtally_store::questions::{Question, Questions, Span};
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Timeout of a sample question; counting stops while the demo waits for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum characters of an answer that are shown: some lines of a terminal.
const ANSWER_CHARS_MAX: usize = 300;

/// Explains the demo in one process.
pub(super) struct Guide {
    questions: Arc<Embedded>,
    report: Arc<Report>,
    address: SocketAddr,
    began_ms: i64,
    seconds: u64,
    said_hello: bool,
    looked_at_ms: i64,
    lines_before: u64,
}

impl Guide {
    /// A guide to a service that answers on an address.
    pub(super) fn new(args: &DemoArgs, questions: Arc<Embedded>, report: Arc<Report>, address: SocketAddr) -> Self {
        let now = SystemClock.monotonic_ms();
        let (seconds, said_hello) = (args.seconds, false);
        Guide { questions, report, address, began_ms: now, seconds, said_hello, looked_at_ms: now, lines_before: 0 }
    }

    /// Called often. Prints a status line once a second, and sample questions once a minute is closed. Returns true
    /// when the time is over.
    pub(super) fn look(&mut self, handle: &tokio::runtime::Handle) -> bool {
        let now = SystemClock.monotonic_ms();
        if now - self.looked_at_ms >= LOOK_MS {
            if !self.said_hello {
                self.said_hello = self.say_hello(handle);
            }
            self.status((now - self.looked_at_ms).max(1) as u64);
            self.looked_at_ms = now;
        }
        self.seconds > 0 && now - self.began_ms >= self.seconds as i64 * 1_000
    }

    /// Prints sample questions with their answers; returns `false` while nothing is closed yet.
    fn say_hello(&self, handle: &tokio::runtime::Handle) -> bool {
        let question = Question::about(Span::Last(1));
        let Ok(top) = handle.block_on(self.questions.top_ads(&question, 1)) else { return false };
        let Some(&(best, _)) = top.ads.first() else { return false };
        show_answers(self.address, &best);
        true
    }

    fn status(&mut self, elapsed_ms: u64) {
        let ledger = self.report.total();
        let rate = ledger.read.saturating_sub(self.lines_before) * 1_000 / elapsed_ms;
        self.lines_before = ledger.read;
        let lag = self.report.gauges().watermark_lag_ms;
        let lag = lag.map_or_else(|| "-".into(), |lag| format!("{:.1} s", lag as f64 / 1e3));
        terminal::say_over(&format!(
            "{} committed lines, {} counted, {} duplicates, {}/s, watermark {lag} behind",
            thousands(ledger.read),
            thousands(ledger.counted),
            thousands(ledger.duplicate),
            thousands(rate),
        ));
    }
}

/// Prints sample questions with their answers. `best` is the most clicked ad.
pub(super) fn show_answers(address: SocketAddr, best: &dyn fmt::Display) {
    terminal::say("\nFirst answers:");
    for path in [
        "/ads/top100?minutes=1".to_owned(),
        format!("/ads/{best}/clicks?minutes=1&series=true"),
        "/ads/top100?minutes=1&filter_country=US".to_owned(),
        "/ads/top100?minutes=5&include_open=true".to_owned(),
        "/ledger".to_owned(),
        "/readyz".to_owned(),
        "/metrics".to_owned(),
    ] {
        let answer = ask(address, &path).unwrap_or_else(|error| format!("no answer: {error}"));
        terminal::say(&format!("\ncurl 'http://{address}{path}'\n  {}", shortened(&answer)));
    }
    terminal::say("\nCtrl-C stops and cleans up.\n");
}

/// Sends a request like `curl`, and returns the body of the answer.
pub(super) fn ask(mut address: SocketAddr, path: &str) -> std::io::Result<String> {
    // If the server is bound to all addresses, the request goes to the loopback address.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// The beginning of an answer, on one line.
fn shortened(answer: &str) -> String {
    let answer = answer.trim_end();
    let line: String = answer.lines().next().unwrap_or_default().chars().take(ANSWER_CHARS_MAX).collect();
    if line.len() < answer.len() { line + "…" } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_on_one_line() {
        let check = |answer: &str, expected: &str| assert_eq!(shortened(answer), expected);
        check("{}\n", "{}");
        check("one\ntwo\n", "one…");
        check(&"ä".repeat(ANSWER_CHARS_MAX), &"ä".repeat(ANSWER_CHARS_MAX));
        check(&"ä".repeat(ANSWER_CHARS_MAX + 1), &("ä".repeat(ANSWER_CHARS_MAX) + "…"));
    }
}
