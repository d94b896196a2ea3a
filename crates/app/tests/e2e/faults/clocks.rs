//! Clocks that jump, run fast or slow, and processes that sleep: the real run loop on real files, with a clock that the
//! test controls.

use super::{HOUR, MINUTE, SECOND, check, click};
use crate::site::{Site, appending, wait_for};
use adtally::config;
use adtally::handles;
use adtally_engine::clock::{Clock, SystemClock, SystemRandomness};
use adtally_engine::report::Report;
use adtally_engine::status::Status;
use adtally_engine::{Ending, Service};
use adtally_store::backing::StoreUrl;
use rustix::process::Signal;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const DAY: i64 = 24 * HOUR;

/// A replacement for the system's clocks, set forward or back by the test.
#[derive(Default)]
struct TurnedClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicI64,
    suspension: Mutex<Option<Suspension>>,
}

/// The number of wall clock readings before the process sleeps, and what happens during the sleep.
type Suspension = (u32, Box<dyn FnOnce() + Send>);

impl TurnedClock {
    /// Advances both clocks.
    fn pass(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Moves the wall clock only.
    fn jump(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The action during the sleep, if the process sleeps now.
    fn suspended(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let mut suspension = self.suspension.lock().unwrap();
        let (readings, _) = suspension.as_mut()?;
        *readings = readings.saturating_sub(1);
        if *readings > 0 { None } else { suspension.take().map(|(_, meanwhile)| meanwhile) }
    }
}

impl Clock for TurnedClock {
    fn wall_ms(&self) -> i64 {
        let now = SystemClock.wall_ms() + self.wall_ms.load(Ordering::SeqCst);
        // The caller gets the time from before the sleep.
        if let Some(meanwhile) = self.suspended() {
            meanwhile();
        }
        now
    }

    fn monotonic_ms(&self) -> i64 {
        SystemClock.monotonic_ms() + self.monotonic_ms.load(Ordering::SeqCst)
    }
}

/// A service on the folders `logs` and `data` of a site, in this process.
struct Turned {
    clock: Arc<TurnedClock>,
    report: Arc<Report>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Turned {
    fn start(site: &Site) -> Turned {
        let (_, mut config) = config::load(None, &[], &[]).unwrap();
        config.run.source.paths = vec![site.path("logs").display().to_string()];
        config.run.store.data_dir = StoreUrl::of_folder(site.path("data"));
        config.run.epoch.interval = Duration::from_millis(100);
        config.run.epoch.fsync = false;
        let clock = Arc::new(TurnedClock::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, started) = std::sync::mpsc::channel();
        let (service_clock, service_stop) = (Arc::clone(&clock), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_stack_size(8 << 20)
                .enable_all()
                .build()
                .unwrap();
            let options = handles::run_options(&config, Ending::Never, 1);
            let service =
                Service::start(&options, service_clock, Arc::new(SystemRandomness), runtime.handle()).unwrap();
            sender.send(service.report()).unwrap();
            service.run(&service_stop, |_, _| ()).unwrap();
        });
        Turned { clock, report: started.recv().unwrap(), stop, thread }
    }

    fn now(&self) -> i64 {
        self.clock.wall_ms()
    }

    fn wait_read(&self, lines: u64) {
        wait_for(&format!("{lines} lines"), || (self.report.total().read == lines).then_some(()));
    }

    fn closed_ms(&self) -> i64 {
        self.report.ledger().partitions[0].closed_ms.unwrap_or_default()
    }

    /// Advances time until the clock has closed all minutes before a time.
    fn pass_until_closed(&self, before_ms: i64) {
        wait_for("the clock to close minutes", || {
            self.clock.pass(SECOND);
            (self.closed_ms() >= before_ms).then_some(())
        });
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// Clicks up to this time, a millisecond apart.
fn now_clicks(at: i64, users: std::ops::Range<i64>) -> String {
    users.clone().map(|user| click(at - (users.end - user), user)).collect()
}

/// A wall clock that jumps a day either way changes no count and closes no minute, `/readyz` tells, and when it is
/// right again it closes minutes as before.
#[test]
fn fault_20_a_wall_clock_that_jumps_a_day() {
    for jump in [DAY, -DAY] {
        let site = Site::new();
        std::fs::create_dir_all(site.path("logs")).unwrap();
        let turned = Turned::start(&site);
        let began = turned.now();
        let mut text = now_clicks(began, 0..20);
        site.append("logs/clicks.log", &text);
        turned.wait_read(20);
        turned.clock.jump(jump);
        wait_for("the problem to be told", || {
            turned.report.readiness().problems.iter().find(|problem| problem.contains("disagrees")).cloned()
        });
        let closed = turned.closed_ms();
        // Idle for ten minutes, in which a trusted clock would close ten minutes.
        for _ in 0..60 {
            turned.clock.pass(10 * SECOND);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(turned.closed_ms(), closed, "a clock that is wrong closes nothing");
        let more = now_clicks(began + 10 * MINUTE, 20..40);
        site.append("logs/clicks.log", &more);
        text += &more;
        turned.wait_read(40);
        turned.clock.jump(-jump);
        wait_for("the problem to be gone", || turned.report.readiness().problems.is_empty().then_some(()));
        turned.pass_until_closed(began + 11 * MINUTE);
        turned.stop();
        check(&site, &text, &[]);
    }
}

/// A service on an empty folder of logs, with a clock that the test controls.
fn started() -> (Site, Turned) {
    let site = Site::new();
    std::fs::create_dir_all(site.path("logs")).unwrap();
    let turned = Turned::start(&site);
    (site, turned)
}

/// A server whose clock is an hour fast and that logs all the time has all its lines set aside as `future`, and holds
/// up nobody's minutes.
#[test]
fn fault_41_a_server_an_hour_fast_holds_nobody_up() {
    let (site, turned) = started();
    let began = turned.now();
    let (mut right, mut lines) = (String::new(), 0);
    for second in 0..150 {
        let now = turned.now();
        let line = click(now, second);
        site.append("logs/right.log", &line);
        site.append("logs/fast.log", click(now + HOUR, 1_000 + second));
        right += &line;
        lines += 2;
        if second % 10 == 0 {
            turned.wait_read(lines);
        }
        turned.clock.pass(SECOND);
    }
    turned.wait_read(lines);
    assert_eq!(turned.report.total().future, 150, "all of the fast one's lines, and the right one's none");
    assert!(turned.closed_ms() >= began / MINUTE * MINUTE + 2 * MINUTE, "the right one's minutes are closed");
    turned.stop();
    check(&site, &right, &[("future", 150)]);
}

/// A server whose clock is an hour slow and that logs all the time is counted in its own minutes; while it holds those
/// of the others open, `/readyz` says which input does.
#[test]
fn fault_54_a_server_an_hour_slow_is_named() {
    let (site, turned) = started();
    let (mut text, mut lines) = (String::new(), 0);
    for second in 0..100 {
        let now = turned.now();
        for (name, line) in [("right", click(now, second)), ("slow", click(now - HOUR, 1_000 + second))] {
            site.append(&format!("logs/{name}.log"), &line);
            text += &line;
            lines += 1;
        }
        if second % 10 == 0 {
            turned.wait_read(lines);
        }
        turned.clock.pass(SECOND);
    }
    turned.wait_read(lines);
    wait_for("the note", || {
        let notes = turned.report.readiness().notes;
        notes.into_iter().find(|note| note.contains("slow.log holds minutes open: its watermark is 3"))
    });
    // It stops logging: the other servers' minutes close.
    let began = turned.now();
    for second in 0..100 {
        let line = click(turned.now(), 5_000 + second);
        site.append("logs/right.log", &line);
        text += &line;
        lines += 1;
        if second % 10 == 0 {
            turned.wait_read(lines);
        }
        turned.clock.pass(SECOND);
    }
    turned.wait_read(lines);
    turned.pass_until_closed(began);
    turned.stop();
    check(&site, &text, &[]);
}

/// After the machine was suspended for five minutes, lines of this moment are not `future`.
#[test]
fn fault_53_suspended_for_five_minutes() {
    let (site, turned) = started();
    let mut text = now_clicks(turned.now(), 0..20);
    site.append("logs/clicks.log", &text);
    turned.wait_read(20);
    turned.clock.pass(5 * MINUTE);
    let more = now_clicks(turned.now(), 20..40);
    site.append("logs/clicks.log", &more);
    text += &more;
    turned.wait_read(40);
    // Also if the monotonic clock does not count the time of a suspension.
    turned.clock.jump(5 * MINUTE);
    let more = now_clicks(turned.now(), 40..60);
    site.append("logs/clicks.log", &more);
    text += &more;
    turned.wait_read(60);
    turned.stop();
    check(&site, &text, &[]);
}

/// Whichever of its readings of the clock a process is suspended after, lines that are written meanwhile and are read
/// when it wakes up are neither `future` nor late.
#[test]
fn fault_53_suspended_after_any_reading_of_the_clock() {
    const FILES: i64 = 64;
    let (site, turned) = started();
    let mut text = String::new();
    // So many that the first is decoded while the last is still being read.
    let names: Vec<String> = (0..FILES).map(|file| format!("logs/{file}.log")).collect();
    for (name, file) in names.iter().zip(0..) {
        let lines = now_clicks(turned.now(), file * 20..file * 20 + 20);
        site.append(name, &lines);
        text += &lines;
    }
    turned.wait_read(text.lines().count() as u64);
    for readings in 1..=40 {
        let (written, lines) = std::sync::mpsc::channel();
        let clock = Arc::clone(&turned.clock);
        let users = 1_000 * i64::from(readings)..;
        let mut files: Vec<_> = names.iter().map(|name| appending(&site.path(name))).collect();
        let meanwhile = move || {
            clock.pass(5 * MINUTE);
            let at = clock.wall_ms();
            for (file, user) in files.iter_mut().zip(users) {
                let line = click(at, user);
                file.write_all(line.as_bytes()).unwrap();
                written.send(line).unwrap();
            }
        };
        *turned.clock.suspension.lock().unwrap() = Some((readings, Box::new(meanwhile)));
        text.extend(lines);
        turned.wait_read(text.lines().count() as u64);
    }
    turned.stop();
    check(&site, &text, &[]);
}

/// The binary, stopped by a signal for some seconds in which lines of this moment are written, finds none of them
/// `future` or late when it is let go on.
#[test]
fn fault_53_stopped_and_continued() {
    let site = Site::new();
    let mut text = now_clicks(SystemClock.wall_ms(), 0..20);
    site.write("logs/clicks.log", &text);
    site.write("adtally.toml", "[time]\nmax_future_skew = \"500ms\"\n[epoch]\ninterval = \"100ms\"\n");
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    server.send(Signal::STOP);
    for step in 1..=3 {
        std::thread::sleep(Duration::from_millis(800));
        let more = now_clicks(SystemClock.wall_ms(), step * 20..step * 20 + 20);
        site.append("logs/clicks.log", &more);
        text += &more;
    }
    assert!(server.is_stopped());
    server.send(Signal::CONT);
    server.wait_read(80);
    server.stop();
    check(&site, &text, &[]);
}
