//! Roll-ups: hours and days are the sums of their minutes, each once, whatever fails and whatever the memory bound.

use super::super::upkeep::{LakeProgress, RollUp};
use super::*;

/// Epochs of four hours each.
const EPOCH_MINUTES: i64 = 240;

/// Half past ten in the evening.
const BEGIN: Minute = Minute(29_000_160 - 90);

/// Every seventh minute has clicks of an ad of its own, of one in two countries, and of one a day.
fn minute(at: i64) -> Option<MinuteCounts> {
    let mut counts = MinuteCounts::empty(Minute(BEGIN.0 + at));
    if at % 7 != 0 {
        return None;
    }
    if at % 1_400 == 0 {
        counts.push(3, Country::parse(b"US"), 5);
    }
    counts.push(42, Country::parse(b"DE"), 1);
    counts.push(42, Country::parse(b"US"), 2);
    counts.push(1_000 + at as u64, Country::parse(b"DE"), 1);
    Some(counts)
}

/// Epochs of counts. The second to fourth repeat the last minute of the previous one.
pub(super) fn projections(numbers: std::ops::RangeInclusive<u64>) -> Vec<EpochProjection> {
    let projection = |epoch: u64| {
        let (from, to) = ((epoch as i64 - 1) * EPOCH_MINUTES, epoch as i64 * EPOCH_MINUTES);
        let ledger = Ledger { read: epoch, counted: epoch, ..Ledger::default() };
        EpochProjection {
            progress: Progress {
                log_id: LOG_ID,
                number: epoch,
                clock_ms: Minute(BEGIN.0 + to).start_ms(),
                ledger,
                ..Progress::default()
            },
            counts: (from - 7..to).filter(|&at| at >= 0).filter_map(minute).collect(),
            staged: Vec::new(),
            inputs: Arc::default(),
            correction: None,
        }
    };
    numbers.map(projection).collect()
}

/// The progress of the tables after an epoch: all of its minutes except the last ten are final.
pub(super) fn reached(epoch: u64) -> LakeProgress {
    let end = Minute(BEGIN.0 + epoch as i64 * EPOCH_MINUTES);
    held(epoch, Some(Minute(end.0 - 10).start_ms()), end.start_ms(), end.start_ms())
}

/// The progress of the tables at an epoch with this final frontier and this clock.
pub(super) fn held(epoch: u64, final_ms: Option<i64>, clock_ms: i64, now_ms: i64) -> LakeProgress {
    let mut progress = Progress { log_id: LOG_ID, number: epoch, clock_ms, ..Progress::default() };
    if let Some(final_ms) = final_ms {
        progress.frontiers.final_.advance(final_ms);
    }
    LakeProgress { partitions: vec![progress], now_ms, ..LakeProgress::default() }
}

/// Tokens that are unique within this test process.
pub(super) fn tokens() -> impl Fn() -> u128 + Send + Sync {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    || u128::from(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// Rolls up all final spans with little memory; returns the number of commits.
async fn roll_up(lake: &Lake, reached: &LakeProgress, rows_max: usize) -> Result<u32> {
    let tokens = tokens();
    let mut commits = 0;
    for roll_up in RollUp::ALL {
        while lake.roll_up_within(roll_up, reached, &tokens, rows_max).await? {
            commits += 1;
        }
        commits += 1;
    }
    Ok(commits)
}

/// The rows of a table of counts, summed.
async fn rows(lake: &Lake, table: &str, span: &str) -> Vec<String> {
    let query = format!(
        "SELECT date_part('epoch', {span})::BIGINT AS at, ad_id, country, sum(clicks), count(*) FROM {table} GROUP BY 1, 2, 3 \
         ORDER BY 1, 2, 3"
    );
    sql(lake, &query).await
}

/// The expected rows of a roll-up, each once.
async fn expected(lake: &Lake, span: &str, from: Minute, to: Minute) -> Vec<String> {
    let query = format!(
        "SELECT date_part('epoch', date_trunc('{span}', minute))::BIGINT AS at, ad_id, country, sum(clicks), 1 \
         FROM clicks_by_minute WHERE date_part('epoch', minute) >= {} AND date_part('epoch', minute) < {} GROUP BY 1, 2, 3 \
         ORDER BY 1, 2, 3",
        from.0 * 60,
        to.0 * 60
    );
    sql(lake, &query).await
}

async fn check_rolled(lake: &Lake, reached: &LakeProgress) {
    let end = Minute::of(reached.final_ms().unwrap());
    for (roll_up, span) in [(RollUp::Hour, "hour"), (RollUp::Day, "day")] {
        let end = roll_up.floor(end);
        let found = rows(lake, roll_up.table().name(), span).await;
        let expected = expected(lake, span, Minute(0), end).await;
        let differing = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(found == expected, "{span}s: {} rows instead of {}: {differing:?}", found.len(), expected.len());
        assert_eq!(lake.rolled_up(roll_up, 0).await.unwrap(), Some(end).filter(|_| !found.is_empty()));
    }
}

#[test]
fn hours_and_days_are_the_sums_of_their_final_minutes_and_are_made_once() {
    run(async {
        let lake = in_memory().await;
        let tokens = tokens();
        assert!(!lake.roll_up(RollUp::Hour, &reached(1), &tokens).await.unwrap(), "nothing is held");
        let epochs = projections(1..=18);
        for last in [1_usize, 2, 9, 18] {
            lake.project(&epochs[..last], TOKEN).await.unwrap();
            let reached = reached(last as u64);
            let none = held(last as u64, None, reached.now_ms, reached.now_ms);
            assert!(!lake.roll_up(RollUp::Hour, &none, &tokens).await.unwrap());
            for _ in 0..2 {
                roll_up(&lake, &reached, 1_000_000).await.unwrap();
                check_rolled(&lake, &reached).await;
            }
        }
        let stamps = sql(&lake, "SELECT DISTINCT epoch FROM clicks_by_hour ORDER BY 1").await;
        assert_eq!(stamps, ["1", "2", "9", "18"]);
    });
}

#[test]
fn little_memory_makes_more_batches_and_more_files_of_the_same_rows() {
    run(async {
        let epochs = projections(1..=18);
        let mut commits = Vec::new();
        for rows_max in [1_000_000, 500, 30, 6] {
            let lake = in_memory().await;
            lake.project(&epochs, TOKEN).await.unwrap();
            commits.push(roll_up(&lake, &reached(18), rows_max).await.unwrap());
            check_rolled(&lake, &reached(18)).await;
        }
        assert!(commits.is_sorted() && commits[0] < commits[3], "{commits:?}");
    });
}

#[test]
fn a_crash_or_a_lost_reply_at_any_write_makes_no_span_twice_and_leaves_none_out() {
    run(async {
        let epochs = projections(1..=9);
        for lost_reply in [false, true] {
            for after in 0.. {
                let store = Failing::new("clicks_by_");
                let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
                lake.project(&epochs, TOKEN).await.unwrap();
                // More failures than one attempt survives: the process "dies" and another one continues.
                store.fail(after, 8, lost_reply);
                let survived = roll_up(&lake, &reached(9), 300).await.is_ok();
                store.fail(0, 0, false);
                let lake = Lake::open(store as Arc<dyn ObjectStore>).await.unwrap();
                roll_up(&lake, &reached(9), 300).await.unwrap();
                check_rolled(&lake, &reached(9)).await;
                if survived && after > 3 {
                    break;
                }
            }
        }
    });
}

#[test]
fn rows_of_a_log_that_was_cut_or_lost_are_not_added_again() {
    run(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let lake = Lake::open(Arc::clone(&store)).await.unwrap();
        lake.project(&projections(1..=9), TOKEN).await.unwrap();
        roll_up(&lake, &reached(9), 1_000_000).await.unwrap();
        let mut foreign = reached(9);
        foreign.partitions[0].log_id = 99;
        let error = lake.roll_up(RollUp::Hour, &foreign, &tokens()).await.unwrap_err();
        assert!(error.to_string().contains("another epoch log"), "{error}");
        let entry = Path::from("clicks_by_hour/_delta_log/00000000000000000001.json");
        let text = store.get(&entry).await.unwrap().bytes().await.unwrap();
        let lines = std::str::from_utf8(&text).unwrap().lines().filter(|line| !line.contains("\"txn\""));
        store.put(&entry, lines.collect::<Vec<_>>().join("\n").into()).await.unwrap();
        let lake = Lake::open(store).await.unwrap();
        let error = lake.roll_up(RollUp::Hour, &reached(9), &tokens()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("was cut"), "{error}");
    });
}

#[test]
fn long_ranges_are_the_sums_of_their_minutes_whatever_is_rolled_up() {
    run(async {
        let lake = in_memory().await;
        let epochs = projections(1..=18);
        let mut rng = 7_u64;
        for (last, rolled) in [(9_u64, 0_u64), (9, 9), (18, 9), (18, 18)] {
            lake.project(&epochs[..last as usize], TOKEN).await.unwrap();
            if rolled == last {
                roll_up(&lake, &reached(rolled), 200).await.unwrap();
            }
            for _ in 0..40 {
                let mut random = |below: i64| {
                    rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (rng >> 33) as i64 % below
                };
                let from = Minute(BEGIN.0 - 100 + random(5_000));
                let to = Minute(from.0 + 1 + random(5_000));
                // A reader may not know the newest epochs.
                let cut = Epochs::of(0, if random(2) == 0 { last } else { 9 });
                let selection = Selection { ad_id: (random(2) == 0).then_some(42), country: None };
                let (mut found, mut plain) = (BTreeMap::new(), BTreeMap::new());
                let add = |sums: &mut BTreeMap<(u64, Country), i64>, counts: &MinuteCounts| {
                    for (ad, country, clicks) in counts.rows() {
                        *sums.entry((ad, country)).or_default() += clicks;
                    }
                };
                lake.each_count((from, to), &cut, selection, |counts| add(&mut found, counts)).await.unwrap();
                lake.each_minute((from, to), Some(&cut), selection, |counts| add(&mut plain, counts)).await.unwrap();
                assert_eq!(found, plain, "{from:?} to {to:?}, {cut:?}");
            }
        }
    });
}
