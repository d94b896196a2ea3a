//! DuckDB, Polars and Spark read the lake on S3 while two workers write it: each read agrees with itself, and the last one with
//! the truth.

use super::chaos::Agent;
use super::services::{Broker, S3};
use super::{Deployment, FAST};
use crate::expected::{Expected, KEY};
use crate::lake::interpreter;
use crate::site::{poll, wait_for};
use crate::spark::submit_arguments;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// The readers of `follow_lake.py`.
const READERS: [&str; 3] = ["duckdb", "polars", "spark"];

/// The tables with clicks.
const TABLES: [&str; 2] = ["clicks_by_minute", "clicks"];

/// The readers read until each of them has found more clicks than before this many times.
const READS: usize = 3;

/// Pause after a read that finds nothing new.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Pieces of the log. It grows by one after another until all have read often enough; the rest is then appended at once.
const PIECES: usize = 2_000;

/// Pause between pieces. All of them take seven minutes; Spark needs one if the machine is idle.
const PIECE_PAUSE: Duration = Duration::from_millis(200);

/// What the readers and the writer of the log know of each other.
struct Progress {
    /// Readers that have not found more clicks [`READS`] times.
    missing: AtomicUsize,
    /// Whether the log grows.
    is_growing: AtomicBool,
}

/// A program that reads the lake when it is asked to; dropping it kills it.
struct Reader {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    /// The lines that it prints.
    answers: Receiver<String>,
    /// The file with its standard error.
    said: PathBuf,
}

impl Reader {
    /// Starts one. It prints a line when it is ready.
    fn start(deployment: &Deployment<'_>, s3: &S3, name: &'static str) -> Reader {
        let said = deployment.site.path(&format!("{name}.stderr"));
        let mut command = Command::new(interpreter());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/follow_lake.py"));
        command.args([name, &format!("{}/lake", deployment.site.data())]).current_dir(deployment.site.path(""));
        command.envs(s3.variables()).env("TZ", "America/New_York");
        command.env("PYSPARK_SUBMIT_ARGS", submit_arguments(&s3a(s3)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Reader { name, child, stdin, answers, said }
    }

    /// The next line that it prints.
    fn answer(&self) -> Value {
        let next = poll(|| match self.answers.try_recv() {
            Ok(line) => Some(Some(line)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        });
        let said = || std::fs::read_to_string(&self.said).unwrap();
        let line = next.flatten().unwrap_or_else(|| panic!("{} does not answer: {}", self.name, said()));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name))
    }

    /// Asks for a read of all tables.
    fn ask(&mut self, what: &str) -> Value {
        // If it has ended, it does not answer.
        drop(writeln!(self.stdin, "{what}"));
        self.answer()
    }

    /// Reads until all readers have seen the lake grow often enough.
    fn follow(&mut self, progress: &Progress) {
        let name = self.name;
        assert_eq!(self.answer()["ready"], name);
        let (mut before, mut epochs, mut grown): (u64, BTreeMap<String, u64>, usize) = (0, BTreeMap::new(), 0);
        while progress.missing.load(SeqCst) > 0 {
            let read = self.ask("read");
            let counted = read["counted"].as_u64().unwrap();
            for table in TABLES {
                assert_eq!(read[table], counted, "{table} in {name}: {read}");
            }
            assert_eq!(read["differences"], 0, "{name}: {read}");
            let found: BTreeMap<String, u64> = serde_json::from_value(read["epochs"].clone()).unwrap();
            let went_back = epochs.iter().any(|(partition, epoch)| found.get(partition) < Some(epoch));
            assert!(!went_back && counted >= before, "{name}: {read} after {before} clicks of {epochs:?}");
            if counted > before {
                grown += 1;
                progress.missing.fetch_sub(usize::from(grown == READS), SeqCst);
            } else {
                std::thread::sleep(READ_PAUSE);
            }
            // The log stops growing when none is missing, so this is the order to ask in.
            let goes_on = progress.is_growing.load(SeqCst) || progress.missing.load(SeqCst) == 0;
            assert!(
                goes_on,
                "{name}: the log has ended, or another reader; {grown} reads of {READS} found more: {read}"
            );
            (before, epochs) = (counted, found);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The settings with which Spark reads this S3.
fn s3a(s3: &S3) -> String {
    let [(_, endpoint), (_, key), (_, secret), (_, region), _] = s3.variables();
    let settings = [
        ("endpoint", &*endpoint),
        ("endpoint.region", &*region),
        ("access.key", &*key),
        ("secret.key", &*secret),
        ("path.style.access", "true"),
    ];
    settings.map(|(name, value)| format!("--conf spark.hadoop.fs.s3a.{name}={value}")).join(" ")
}

#[test]
fn duckdb_polars_and_spark_read_the_lake_while_workers_write_it() {
    let (broker, s3) = (Broker::shared(), S3::start());
    let deployment = Deployment::on_s3(broker, &s3, 2);
    let site = &deployment.site;
    // Epochs long enough that the tables do not consist of a thousand small files.
    site.write("fast.toml", format!("{}{KEY}", FAST.replace("300ms", "2s")));
    let words = "--lines 60000 --rate 100 --ads 500 --seed 21 --duplicates 4% --malformed 0.5% --click-ids 30% \
                 --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(site, "whole.log", words);
    let text = site.read("whole.log");
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let mut pieces = lines.chunks(lines.len().div_ceil(PIECES));
    site.write("logs-0/clicks.log", "");
    let mut readers = READERS.map(|name| Reader::start(&deployment, &s3, name));
    let workers = [deployment.worker(""), deployment.worker("")];
    let _agent = Agent::start(&deployment, 0);
    wait_for("the lake", || {
        let found = site.words(&["sql", "--data-dir", site.data(), "SELECT count(*) FROM ledger"]);
        (found.code == Some(0)).then_some(())
    });
    let progress = Progress { missing: AtomicUsize::new(READERS.len()), is_growing: AtomicBool::new(true) };
    std::thread::scope(|scope| {
        let progress = &progress;
        let following = readers.each_mut().map(|reader| scope.spawn(move || reader.follow(progress)));
        // One that ends has failed, or all are done.
        while !following.iter().any(|reader| reader.is_finished())
            && let Some(piece) = pieces.next()
        {
            site.append("logs-0/clicks.log", piece.concat());
            std::thread::sleep(PIECE_PAUSE);
        }
        progress.is_growing.store(false, SeqCst);
    });
    site.append("logs-0/clicks.log", pieces.flatten().copied().collect::<Vec<_>>().concat());
    deployment.wait_read(expected.lines());
    for reader in &mut readers {
        let read = reader.ask("counts");
        assert_eq!(read["counted"], expected.report["counted"], "{}", reader.name);
        for table in TABLES {
            let csv = read[format!("{table}.csv")].as_str().unwrap();
            expected.check_csv(&format!("{table} in {}", reader.name), csv);
        }
    }
    workers.into_iter().for_each(|worker| drop(worker.stop()));
    expected.check_counts(site);
    site.verify();
}
