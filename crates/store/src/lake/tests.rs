//! Tests of the lake: projected rows are read back once, whatever fails in between.
//!
//! Contents: fixtures; projecting; failing stores; queries of raw clicks; SQL. Damage is in `damage`, several
//! partitions are in `partitions`, tables of earlier versions in `earlier`.

use super::*;
use crate::durable::DurableLocal;
use crate::questions::Filters;
use adtally_model::dead_letter::JudgedClick;
use adtally_model::{
    ClickColumns, ClickRef, Country, DeadLetter, ErrorKind, Identity, Ledger, LinePositions, Minute, MinuteCounts,
    Progress, StagedFile, Verdict, Watermark,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::collections::BTreeMap;

mod damage;
mod earlier;
mod failing;
mod partitions;
mod rolling_up;
mod sql;
mod upkeep;

use failing::Failing;

const LOG_ID: u128 = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321;
const TOKEN: u128 = 0xf11e;
const START: Minute = Minute(29_000_000);

// ---- fixtures ----

/// Runs a test on threads whose stacks are deep enough for unoptimised SQL planning.
fn run<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::spawn(test).await.unwrap() })
}

#[derive(Clone, Debug, PartialEq)]
struct Click {
    ms: i64,
    ad: u64,
    country: &'static str,
    ip: &'static str,
    user: String,
}

/// The clicks of an epoch: 40 within two minutes, with few ads, countries, addresses and users, so that all filters
/// both match and exclude some.
fn clicks(epoch: u64) -> Vec<Click> {
    let click = |n: u64| Click {
        ms: START.start_ms() + (epoch as i64 - 1) * 30_000 + n as i64 * 1_009,
        ad: [7, 42, i64::MAX as u64, 1_000_000 + epoch][(n % 4) as usize],
        country: ["US", "DE", "ZZ"][(n % 3) as usize],
        ip: ["1.2.3.4", "2001:db8::1", "203.0.113.255", "10.0.0.9", "::1"][(n % 5) as usize],
        user: format!("user-{}", n % 7),
    };
    (0..40).map(click).collect()
}

fn columns(clicks: &[Click]) -> ClickColumns {
    let mut columns = ClickColumns::default();
    for (line, click) in clicks.iter().enumerate() {
        let row = ClickRef {
            event_time_ms: click.ms,
            ad_id: click.ad,
            country: Country::parse(click.country.as_bytes()),
            ip: adtally_model::ip::parse(click.ip.as_bytes()).unwrap(),
            user_id: click.user.as_bytes(),
            click_id: if line % 2 == 0 { b"" } else { b"some-id" },
        };
        columns.push(&row, line as u32 * 100, Identity(line as u128));
    }
    columns
}

/// The oracle: counts of matching clicks by minute, ad and country.
fn counted<'a>(clicks: impl IntoIterator<Item = &'a Click>) -> Vec<MinuteCounts> {
    let mut sums: BTreeMap<Minute, BTreeMap<(u64, Country), i64>> = BTreeMap::new();
    for click in clicks {
        let key = (click.ad, Country::parse(click.country.as_bytes()));
        *sums.entry(Minute::of(click.ms)).or_default().entry(key).or_default() += 1;
    }
    let minute = |(minute, sums): (Minute, BTreeMap<(u64, Country), i64>)| {
        let mut counts = MinuteCounts::empty(minute);
        sums.into_iter().for_each(|((ad, country), clicks)| counts.push(ad, country, clicks));
        counts
    };
    sums.into_iter().map(minute).collect()
}

fn all_clicks(epochs: std::ops::RangeInclusive<u64>) -> Vec<Click> {
    epochs.flat_map(clicks).collect()
}

/// An epoch with its encoded files, which are not staged.
fn epoch(number: u64) -> (EpochProjection, Vec<EncodedFile>) {
    let clicks = clicks(number);
    let columns = columns(&clicks);
    let (first, second): (Vec<u32>, Vec<u32>) = (0..columns.len() as u32).partition(|row| row % 2 == 0);
    let parts = [
        ClickRows {
            batch: &columns,
            rows: &first,
            input_name: "logs/a.log",
            positions: LinePositions::Text(1_000 * number),
            sign: 1,
        },
        ClickRows {
            batch: &columns,
            rows: &second,
            input_name: "logs/b.log",
            positions: LinePositions::Text(0),
            sign: 1,
        },
    ];
    let mut files = encode_clicks(&parts, 0, number, u128::from(number)).unwrap();
    let letters = [DeadLetter {
        verdict: Verdict::Malformed,
        reason: "not JSON".into(),
        payload: vec![0xff, 0, b'x'],
        header: None,
        input: "logs/a.log".into(),
        position: number,
        received_at_ms: START.start_ms(),
        click: number.is_multiple_of(4).then(|| JudgedClick::new(&columns.get(1), Watermark::at(START.start_ms()))),
    }];
    if number.is_multiple_of(2) {
        files.extend(encode_dead_letters(&letters, 0, number, u128::from(number)).unwrap());
    }
    let ledger = |lines: u64| Ledger { read: lines, counted: lines, ..Ledger::default() };
    let projection = EpochProjection {
        progress: Progress {
            log_id: LOG_ID,
            number,
            clock_ms: START.start_ms() + number as i64 * 10_000,
            ledger: ledger(40 * number),
            ..Progress::default()
        },
        counts: counted(&clicks).into(),
        staged: files.iter().map(|file| file.staged.clone()).collect(),
        inputs: [("logs/a.log".into(), ledger(20 * number)), ("logs/b.log".into(), ledger(20 * number))].into(),
        correction: None,
    };
    (projection, files)
}

/// The same epochs with another log.
fn under(log_id: u128, partition: u32, epochs: &[EpochProjection]) -> Vec<EpochProjection> {
    let moved = |epoch: &EpochProjection| EpochProjection {
        progress: Progress { log_id, partition, ..epoch.progress },
        ..epoch.clone()
    };
    epochs.iter().map(moved).collect()
}

async fn staged(lake: &Lake, numbers: std::ops::RangeInclusive<u64>) -> Vec<EpochProjection> {
    let mut epochs = Vec::new();
    for number in numbers {
        let (projection, files) = epoch(number);
        lake.stage(&files).await.unwrap();
        epochs.push(projection);
    }
    epochs
}

async fn in_memory() -> Lake {
    Lake::open(Arc::new(InMemory::new())).await.unwrap()
}

const EVER: (Minute, Minute) = (Minute(0), Minute(50_000_000));

/// Checks that the lake contains exactly these epochs, in counts, clicks and ledger.
async fn check_holds(lake: &Lake, last: u64) {
    let expected = counted(&all_clicks(1..=last));
    let counts = lake.counts(EVER.0, EVER.1, None).await.unwrap();
    assert_eq!(counts.minutes, expected);
    let held = if last == 0 { Epochs::default() } else { Epochs::of(0, last) };
    assert_eq!(counts.epochs, held);
    let recount = lake.recount(EVER.0, EVER.1, None).await.unwrap();
    assert_eq!(recount.minutes, expected);
    assert_eq!(lake.held(LOG_ID, 0).await.unwrap().by_all(), last);
    let ledger = lake.ledger(0).await.unwrap().map(|(epoch, total, inputs)| (epoch, total.read, inputs.len()));
    assert_eq!(ledger, (last > 0).then_some((last, 40 * last, 2)));
}

// ---- projecting ----

#[test]
fn opening_again_and_after_half_an_opening_changes_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(DurableLocal::open(folder.path(), true).unwrap());
        LakeTable::open(&store, Table::Clicks, true).await.unwrap();
        let lake = Lake::open(Arc::clone(&store)).await.unwrap();
        check_holds(&lake, 0).await;
        let epochs = staged(&lake, 1..=2).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        drop(lake);
        let lake = Lake::open(store).await.unwrap();
        check_holds(&lake, 2).await;
        assert!(folder.path().join("clicks/_delta_log/00000000000000000001.json").exists());
        let span = lake.minutes().await.unwrap().unwrap();
        assert_eq!(span, (START, Minute(START.0 + 2)));
    });
}

#[test]
fn a_foreign_table_is_refused() {
    run(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let at = PrefixStore::new(Arc::clone(&store), "clicks");
        let log = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"ad_id\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":0}}"#;
        at.put(&Path::from("_delta_log/00000000000000000000.json"), log.into()).await.unwrap();
        let error = Lake::open(store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("`click_timestamp`"), "{error}");
    });
}

#[test]
fn projecting_again_changes_nothing() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=5).await;
        lake.project(&epochs[..2], TOKEN).await.unwrap();
        check_holds(&lake, 2).await;
        lake.project(&epochs[..2], TOKEN).await.unwrap();
        lake.project(&epochs, TOKEN).await.unwrap();
        lake.project(&epochs[1..], TOKEN).await.unwrap();
        lake.project(&[], TOKEN).await.unwrap();
        check_holds(&lake, 5).await;
        let cut = lake.counts(EVER.0, EVER.1, Some(&Epochs::of(0, 3))).await.unwrap();
        assert_eq!((cut.minutes, cut.epochs), (counted(&all_clicks(1..=3)), Epochs::of(0, 3)));
        let second = lake.counts(Minute(START.0 + 1), Minute(START.0 + 2), None).await.unwrap().minutes;
        assert_eq!(second, [counted(&all_clicks(1..=5)).remove(1)]);
    });
}

#[test]
fn logs_are_checkpointed_and_a_new_process_reads_them() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(DurableLocal::open(folder.path(), false).unwrap());
        let lake = Lake::open(Arc::clone(&store)).await.unwrap();
        for number in 1..=12 {
            let epochs = staged(&lake, number..=number).await;
            lake.project(&epochs, TOKEN).await.unwrap();
        }
        for table in Table::PROJECTED {
            let checkpoint = format!("{table}/_delta_log/00000000000000000010.checkpoint.parquet");
            assert!(folder.path().join(&checkpoint).exists(), "{checkpoint}");
        }
        check_holds(&lake, 12).await;
        // Entries that a checkpoint includes are no longer needed.
        std::fs::remove_file(folder.path().join("clicks_by_minute/_delta_log/00000000000000000003.json")).unwrap();
        check_holds(&Lake::open(store).await.unwrap(), 12).await;
    });
}

#[test]
fn epochs_are_read_from_rows_where_statistics_are_missing() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=3).await;
        lake.project(&under(LOG_ID, 7, &epochs), TOKEN).await.unwrap();
        let ledger = lake.table(Table::Ledger);
        let file = ledger.files().await.unwrap().files[0].clone();
        let mut found = Epochs::default();
        files::read_epochs(ledger.reader(&file.path, file.size), &mut found).await.unwrap();
        assert_eq!(found, Epochs::of(7, 3));
    });
}

#[test]
fn selected_counts_of_a_long_range_are_those_of_all_counts() {
    run(async {
        let lake = in_memory().await;
        let mut epochs = staged(&lake, 1..=3).await;
        // The second epoch is hours after the first, the third at the edges of a piece.
        let shifted = |click: Click, minutes: i64| Click { ms: click.ms + minutes * 60_000, ..click };
        let mut all = all_clicks(1..=1);
        for (number, minutes) in [(2, &[200][..]), (3, &[58, 59, 60, 61])] {
            let clicks: Vec<Click> = minutes
                .iter()
                .flat_map(|&minutes| clicks(number).into_iter().map(move |click| shifted(click, minutes)))
                .collect();
            epochs[number as usize - 1].counts = counted(&clicks).into();
            all.extend(clicks);
        }
        lake.project(&epochs[..2], TOKEN).await.unwrap();
        lake.project(&epochs, TOKEN).await.unwrap();
        let range = (Minute(START.0 - 5), Minute(START.0 + 400));
        for ad_id in [None, Some(7), Some(1_000_002), Some(i64::MAX as u64), Some(u64::MAX), Some(8)] {
            for country in [None, Some(Country::parse(b"DE")), Some(Country::parse(b"FR"))] {
                let selection = Selection { ad_id, country };
                let mut found = Vec::new();
                lake.each_minute(range, None, selection, |counts| found.push(counts.clone())).await.unwrap();
                let selected = |click: &&Click| selection.takes(click.ad, Country::parse(click.country.as_bytes()));
                assert_eq!(found, counted(all.iter().filter(selected)), "{selection:?}");
            }
        }
        let mut early = Vec::new();
        let cut = Epochs::of(0, 1);
        lake.each_minute(range, Some(&cut), Selection::default(), |counts| early.push(counts.clone())).await.unwrap();
        assert_eq!(early, counted(&all_clicks(1..=1)));
    });
}

#[test]
fn corrections_are_signed_rows() {
    let (us, de) = (Country::parse(b"US"), Country::parse(b"DE"));
    let sums = |rows: &[counts::SignedRow]| {
        let mut sums = counts::SignedCounts::default();
        sums.extend(START, &mut rows.to_vec());
        sums.summed().finish(false)
    };
    let counts = sums(&[(7, us, 3), (5, us, 1), (7, de, 2), (7, us, -1), (5, us, -1)]).unwrap();
    assert_eq!(counts[0].rows().collect::<Vec<_>>(), [(7, de, 2), (7, us, 2)]);
    assert_eq!(sums(&[(7, us, 1), (7, us, -2)]).unwrap_err().kind(), ErrorKind::Internal);
    assert!(sums(&[(7, us, 1), (7, us, -1)]).unwrap().is_empty());
}

// ---- failing stores ----

#[test]
fn fault_05_a_crash_between_two_tables_is_mended_by_projecting_again() {
    run(async {
        for commits in 0..Table::PROJECTED.len() {
            let store = Failing::new("_delta_log/0");
            let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
            let epochs = staged(&lake, 1..=4).await;
            lake.project(&epochs[..1], TOKEN).await.unwrap();
            store.fail(commits, usize::MAX, false);
            let error = lake.project(&epochs[..3], TOKEN).await.unwrap_err();
            assert!(error.is_retryable(), "{}", error.report());
            // For readers, the tables agree as before.
            check_holds(&lake, 1).await;
            let rows = sql(
                &lake,
                "SELECT (SELECT count(*) FROM clicks) AS a, (SELECT sum(clicks) FROM clicks_by_minute) AS b",
            )
            .await;
            assert_eq!(rows, ["40|40"], "{commits}");
            store.fail(0, 0, false);
            let reopened = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
            reopened.project(&epochs[1..], TOKEN).await.unwrap();
            check_holds(&reopened, 4).await;
            check_holds(&lake, 4).await;
        }
    });
}

#[test]
fn fault_07_a_commit_whose_reply_is_lost_counts_once() {
    run(async {
        for lost in 0..Table::PROJECTED.len() {
            let store = Failing::new("_delta_log/0");
            let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
            let epochs = staged(&lake, 1..=2).await;
            store.fail(lost, 1, true);
            lake.project(&epochs, TOKEN).await.unwrap();
            check_holds(&lake, 2).await;
            let commits = lake.table(Table::PROJECTED[lost]).latest().await.unwrap().version();
            assert_eq!(commits, Some(1), "no second commit");
        }
    });
}

#[test]
fn fault_07_a_failing_checkpoint_fails_no_commit() {
    run(async {
        for matching in ["_last_checkpoint", "checkpoint.parquet"] {
            let store = Failing::new(matching);
            let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
            store.fail(0, usize::MAX, false);
            for number in 1..=11 {
                let epochs = staged(&lake, number..=number).await;
                lake.project(&epochs, TOKEN).await.unwrap();
            }
            check_holds(&lake, 11).await;
            check_holds(&Lake::open(store as Arc<dyn ObjectStore>).await.unwrap(), 11).await;
        }
    });
}

// ---- questions over raw clicks ----

async fn scan(lake: &Lake, span: (Minute, Minute), filters: &Filters, staged: &[StagedFile]) -> Vec<MinuteCounts> {
    let scan = ClickScan { from: span.0, to: span.1, filters, cut: None, staged };
    lake.scan_clicks(&scan).await.unwrap().minutes
}

#[test]
fn filters_alone_and_combined_with_staged_files() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=6).await;
        lake.project(&epochs[..4], TOKEN).await.unwrap();
        // Staged files of projected epochs may be named again: they are not read twice.
        let named: Vec<StagedFile> = epochs[2..].iter().flat_map(|epoch| epoch.staged.clone()).collect();
        let all = all_clicks(1..=6);
        let span = (START, Minute(START.0 + 2));
        let within = |span: (Minute, Minute), click: &Click| (span.0..span.1).contains(&Minute::of(click.ms));
        for country in [None, Some("US"), Some("FR")] {
            for ip in [None, Some("1.2.3.4"), Some("2001:db8::1"), Some("9.9.9.9")] {
                for user in [None, Some("user-3"), Some("user-77")] {
                    for span in [EVER, span, (Minute(START.0 + 1), Minute(START.0 + 2)), (EVER.0, START)] {
                        let filters = Filters {
                            country: country.map(|country| Country::parse(country.as_bytes())),
                            ip: ip.and_then(|ip| adtally_model::ip::parse(ip.as_bytes())),
                            user_id: user.map(str::to_owned),
                        };
                        let expected = counted(all.iter().filter(|click| {
                            country.is_none_or(|country| click.country == country)
                                && ip.is_none_or(|ip| click.ip == ip)
                                && user.is_none_or(|user| click.user == user)
                                && within(span, click)
                        }));
                        assert_eq!(scan(&lake, span, &filters, &named).await, expected, "{filters:?} {span:?}");
                    }
                }
            }
        }
        let only_projected = scan(&lake, EVER, &Filters::default(), &[]).await;
        assert_eq!(only_projected, counted(&all_clicks(1..=4)));
    });
}

#[test]
fn an_epoch_over_several_hours_is_a_file_an_hour() {
    let times = [START.start_ms(), START.start_ms() + 3_600_000, START.start_ms() - 3_600_000, START.start_ms() + 1];
    let clicks: Vec<Click> = times.map(|ms| Click { ms, ..clicks(1).remove(0) }).to_vec();
    let columns = columns(&clicks);
    let rows = [0, 1, 2, 3];
    let part = ClickRows { batch: &columns, rows: &rows, input_name: "in", positions: LinePositions::Text(0), sign: 1 };
    let files = encode_clicks(&[part], 2, 9, 1).unwrap();
    let folders: Vec<(&str, u64)> =
        files.iter().map(|file| (file.staged.path.rsplit_once('/').unwrap().0, file.staged.rows)).collect();
    assert_eq!(
        folders,
        [
            ("click_date=2025-02-19/click_hour=20", 1),
            ("click_date=2025-02-19/click_hour=21", 2),
            ("click_date=2025-02-19/click_hour=22", 1)
        ]
    );
    assert_eq!(files[1].staged.event_time_ms, Some((times[0], times[3])));
    assert!(encode_clicks(&[], 0, 1, 1).unwrap().is_empty());
    assert!(encode_dead_letters(&[], 0, 1, 1).unwrap().is_none());
}

// ---- SQL ----

/// The rows of an answer, fields joined with `|`.
async fn sql(lake: &Lake, query: &str) -> Vec<String> {
    let batches: Vec<_> = lake.sql(query).await.unwrap().batches.try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("null");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    rows
}
