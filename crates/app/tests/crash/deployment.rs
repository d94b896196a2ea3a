//! A deployment over stores in memory that outlive its processes, and checks of its data.

use crate::faulty_store::{Fault, Faults};
use crate::oracle::{Expected, Logs, READ_AT_MS};
use adtally::config::{self, Config};
use adtally::handles;
use adtally_engine::clock::{Clock, Randomness, SystemClock};
use adtally_engine::{Backing, Ending, Service, Summary};
use adtally_model::fold::merge_all;
use adtally_model::{IdentityKey, Ledger, Minute, MinuteCounts, PartitionState, Result, StagedTable};
use adtally_store::backing::EMBEDDED;
use adtally_store::data_dir::DataDir;
use adtally_store::epoch_log::EpochLog;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A span with all minutes that tests count.
const EVER: (Minute, Minute) = (Minute(0), Minute(50_000_000));

/// Runs the stores' I/O of all tests; stacks are deep enough for unoptimised SQL planning.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// A running clock that starts a day after the first line.
struct LaterClock {
    began_ms: i64,
}

impl Clock for LaterClock {
    fn wall_ms(&self) -> i64 {
        READ_AT_MS + self.monotonic_ms() - self.began_ms
    }

    fn monotonic_ms(&self) -> i64 {
        SystemClock.monotonic_ms()
    }
}

/// Returns each number once.
struct Numbers(AtomicU64);

impl Randomness for Numbers {
    fn next_u128(&self) -> u128 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        u128::from(number) << 64 | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Two stores and a folder of logs that several processes use in turn.
pub(crate) struct Deployment {
    logs: Arc<TempDir>,
    data: TempDir,
    epochs: Arc<InMemory>,
    lake: Arc<InMemory>,
    clock: Arc<dyn Clock>,
    numbers: Arc<Numbers>,
    config: Config,
}

impl Deployment {
    /// An empty deployment that ends epochs after this many lines.
    pub(crate) fn new(lines_per_epoch: u64) -> Deployment {
        let logs = Arc::new(tempfile::tempdir().expect("a folder"));
        let (_, mut config) = config::load(None, &[], &[]).expect("the defaults are valid");
        config.run.source.paths = vec![logs.path().display().to_string()];
        config.run.epoch.lines_max = lines_per_epoch;
        config.run.identity_key = Some(IdentityKey::new(*b"sixteen bytes ok"));
        Deployment {
            logs,
            data: tempfile::tempdir().expect("a folder"),
            epochs: Arc::new(InMemory::new()),
            lake: Arc::new(InMemory::new()),
            clock: Arc::new(LaterClock { began_ms: SystemClock.monotonic_ms() }),
            numbers: Arc::new(Numbers(AtomicU64::new(1))),
            config,
        }
    }

    /// A copy that starts from the current state.
    pub(crate) fn fork(&self) -> Deployment {
        Deployment {
            logs: Arc::clone(&self.logs),
            data: tempfile::tempdir().expect("a folder"),
            epochs: Arc::new(self.epochs.fork()),
            lake: Arc::new(self.lake.fork()),
            clock: Arc::clone(&self.clock),
            numbers: Arc::clone(&self.numbers),
            config: self.config.clone(),
        }
    }

    /// From now on, ends epochs after this many lines.
    pub(crate) fn set_lines_per_epoch(&mut self, lines: u64) {
        self.config.run.epoch.lines_max = lines;
    }

    /// Lets the servers' logs grow to this content.
    pub(crate) fn write(&self, logs: &Logs) {
        for (server, text) in logs.texts().iter().enumerate() {
            append_up_to(&self.logs.path().join(format!("server-{server}.log")), text);
        }
    }

    /// Runs one process, which reads everything to its end or dies.
    pub(crate) fn run(&self, fault: Fault, attempts_max: u32) -> (Result<Summary>, Faults) {
        let faults = Faults::new(fault);
        let options = handles::run_options(&self.config, Ending::UntilEnd, attempts_max);
        let backing = Backing {
            log: faults.wrap("", &self.epochs),
            lake: faults.wrap("lake/", &self.lake),
            lake_name: "lake".to_owned(),
            is_shared: false,
        };
        let started = DataDir::own(self.data.path()).and_then(|data_dir| {
            let (clock, numbers) = (Arc::clone(&self.clock), Arc::clone(&self.numbers));
            Service::start_on(&options, data_dir, &backing, clock, numbers, RUNTIME.handle())
        });
        let ended = started.and_then(|service| service.run(&AtomicBool::new(false), |_, _| ()));
        (ended, faults)
    }

    /// Runs one process that must succeed.
    pub(crate) fn run_well(&self, context: &str) -> Summary {
        match self.run(Fault::None, 1).0 {
            Ok(summary) => summary,
            Err(error) => panic!("{context}: a run on sound stores failed: {}", error.report()),
        }
    }

    /// Checks that after a run on sound stores, all stored data matches the logs. If `again` is set, also checks that
    /// another run changes nothing.
    pub(crate) fn check(&self, expected: &Expected, again: bool, context: &str) {
        let ledger = self.run_well(context).ledger;
        check_ledger(&ledger, expected, context);
        let before = self.stored(expected, context);
        if !again {
            return;
        }
        let again = self.run_well(context);
        assert_eq!(again.lines_of_run, 0, "{context}: a further run reads again");
        assert_eq!(again.ledger, ledger, "{context}: a further run changes the ledger");
        let after = self.stored(expected, context);
        assert_eq!(after.inputs, before.inputs, "{context}: a further run changes the inputs");
        assert_eq!(after.progress.frontiers, before.progress.frontiers, "{context}: a further run moves the frontiers");
        assert_eq!(
            after.progress.number,
            before.progress.number + 1,
            "{context}: a further run commits more than its claim"
        );
    }

    /// Checks the stored data; returns the state that the log folds to.
    fn stored(&self, expected: &Expected, context: &str) -> PartitionState {
        let backing = Backing {
            log: self.epochs.clone(),
            lake: self.lake.clone(),
            lake_name: "lake".to_owned(),
            is_shared: false,
        };
        RUNTIME.block_on(async {
            let stores = backing.open().await.expect(context);
            let log = stores.logs.log(EMBEDDED);
            let state = log.fold().await.expect(context).expect(context);
            check_ledger(&state.progress.ledger, expected, context);
            state.check_conservation().expect(context);
            let held = stores.lake.held(state.progress.log_id, 0).await.expect(context);
            assert!(held.tables.iter().all(|&(_, epoch)| epoch == Some(state.progress.number)), "{context}: {held:?}");

            let counts = stores.lake.counts(EVER.0, EVER.1, None).await.expect(context).minutes;
            assert_eq!(by_row(&counts), expected.counts, "{context}: clicks_by_minute");
            let recount = stores.lake.recount(EVER.0, EVER.1, None).await.expect(context).minutes;
            assert_eq!(recount, counts, "{context}: clicks");
            let (epoch, total, _) = stores.lake.ledger(0).await.expect(context).expect(context);
            assert_eq!((epoch, total), (state.progress.number, state.progress.ledger), "{context}: ledger");

            for (&minute, folded) in &state.live {
                let log = merge_all(minute, folded.counts.clone());
                let lake = counts.iter().find(|counts| counts.minute == minute);
                assert_eq!(Some(&log), lake, "{context}: the fold of a live minute");
                assert_eq!(folded.identities.len() as i64, log.total(), "{context}: identities of a live minute");
            }
            self.check_chain(&log, &state, expected, context).await;
            state
        })
    }

    /// Checks that every kept record follows its predecessor, and that its staged files exist once.
    async fn check_chain(&self, log: &EpochLog, state: &PartitionState, expected: &Expected, context: &str) {
        let numbers = log.numbers().await.expect(context);
        let mut before: Option<(u64, u128)> = None;
        let mut rows: BTreeMap<StagedTable, u64> = BTreeMap::new();
        let mut paths: Vec<String> = Vec::new();
        for &number in &numbers {
            let (epoch, checksum) = log.read(number).await.expect(context).expect(context);
            assert_eq!(epoch.progress.log_id, state.progress.log_id, "{context}: epoch {number}");
            if let Some((_, predecessor)) = before.filter(|&(last, _)| last + 1 == number) {
                assert_eq!(epoch.predecessor, predecessor, "{context}: epoch {number}");
            }
            for file in &epoch.staged {
                *rows.entry(file.table).or_default() += file.rows;
                let folder = if file.table == StagedTable::Clicks { "clicks" } else { "dead_letters" };
                paths.push(format!("{folder}/{}", file.path));
            }
            before = Some((number, checksum));
        }
        assert_eq!(before, Some((state.progress.number, state.checksum)), "{context}: the newest record");
        let kept_from = numbers.iter().find(|&&number| number > 1).copied().unwrap_or(1);
        assert_eq!(
            numbers.len() as u64,
            state.progress.number + 2 - kept_from.max(2),
            "{context}: holes in {numbers:?}"
        );
        let all = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), all, "{context}: a file is staged by two epochs");
        for path in paths {
            self.lake.head(&path.as_str().into()).await.expect(context);
        }
        if kept_from <= 2 {
            assert_eq!(rows.get(&StagedTable::Clicks), Some(&expected.counted), "{context}: rows of clicks");
            let letters = state.progress.ledger.late + expected.future + expected.malformed + expected.invalid;
            assert_eq!(rows.get(&StagedTable::DeadLetters), Some(&letters), "{context}: dead letters");
        }
    }

    /// Deletes a record.
    pub(crate) fn lose_record(&self, number: u64) {
        let path = EpochLog::new(self.epochs.clone() as Arc<dyn ObjectStore>, 0).path(number);
        RUNTIME.block_on(self.epochs.delete(&path)).expect("a record");
    }

    /// Deletes a table of the lake.
    pub(crate) fn lose_table(&self, table: &str) {
        let all = self.lake.list(Some(&table.into())).map_ok(|object| object.location).boxed();
        RUNTIME.block_on(self.lake.delete_stream(all).try_collect::<Vec<_>>()).expect("a table");
    }

    /// Returns the error of a process that must not start.
    pub(crate) fn start_fails(&self) -> adtally_model::Error {
        self.run(Fault::None, 1).0.expect_err("the process must not start")
    }

    /// The newest record of the log.
    pub(crate) fn head(&self) -> u64 {
        let log = EpochLog::new(self.epochs.clone() as Arc<dyn ObjectStore>, 0);
        RUNTIME.block_on(log.numbers()).expect("memory can be listed").last().copied().unwrap_or_default()
    }
}

fn append_up_to(path: &Path, text: &str) {
    let there = std::fs::metadata(path).map_or(0, |found| found.len() as usize);
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a log");
    file.write_all(&text.as_bytes()[there..]).expect("room for a log");
}

fn check_ledger(ledger: &Ledger, expected: &Expected, context: &str) {
    ledger.check(context).expect(context);
    // The counts themselves are compared with the lake.
    let expected = Expected { counts: BTreeMap::new(), ..expected.clone() };
    let found = Expected {
        counts: BTreeMap::new(),
        read: ledger.read,
        counted: ledger.counted,
        duplicate_or_late: ledger.duplicate + ledger.late,
        future: ledger.future,
        malformed: ledger.malformed,
        invalid: ledger.invalid,
        conflicting: ledger.conflicting_duplicates,
    };
    assert_eq!(found, expected, "{context}: the ledger");
    assert_eq!(ledger.gap_bytes, 0, "{context}: a gap");
}

fn by_row(counts: &[MinuteCounts]) -> BTreeMap<(i64, u64, String), u64> {
    let rows = counts.iter().flat_map(|counts| {
        counts
            .rows()
            .map(|(ad, country, clicks)| ((counts.minute.0, ad, country.as_str().to_owned()), clicks.unsigned_abs()))
    });
    rows.collect()
}
