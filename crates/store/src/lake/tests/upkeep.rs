//! Compaction, retention and vacuum: answers change only for deleted rows.

use super::super::upkeep::{Keep, LakeProgress, RollUp};
use super::rolling_up::{held, projections, reached, tokens};
use super::*;
use crate::epoch_log::EpochLog;
use hashbrown::HashSet;

const DAY_MS: i64 = 86_400_000;

/// The progress of the tables some time after `epoch`: two hours, or days.
fn later(epoch: u64, ms: i64) -> LakeProgress {
    let at = START.start_ms() + ms;
    held(epoch, Some(at), at, at)
}

async fn compact_all(lake: &Lake, reached: &LakeProgress) -> u32 {
    let tokens = tokens();
    let mut rounds = 0;
    while lake.compact(reached, &tokens).await.unwrap().is_some() {
        rounds += 1;
    }
    rounds
}

async fn files(lake: &Lake, table: Table) -> usize {
    lake.table(table).files().await.unwrap().files.len()
}

/// All answers of the lake for these epochs.
async fn everything(lake: &Lake) -> Vec<String> {
    let mut answers = Vec::new();
    for query in [
        "SELECT click_timestamp, ad_id, user_id, ip, country, click_id, input, position, epoch, click_date, click_hour \
         FROM clicks ORDER BY epoch, input, position",
        "SELECT minute, ad_id, country, clicks, epoch, correction FROM clicks_by_minute ORDER BY 1, 2, 3, 5",
        "SELECT * FROM dead_letters ORDER BY epoch",
        "SELECT * FROM ledger ORDER BY epoch, input",
        "SELECT hour, sum(clicks) FROM clicks_by_hour GROUP BY 1 ORDER BY 1",
    ] {
        answers.extend(sql(lake, query).await);
    }
    let filters = Filters { ip: adtally_model::ip::parse(b"1.2.3.4"), ..Filters::default() };
    answers.push(format!("{:?}", scan(lake, EVER, &filters, &[]).await));
    let filters =
        Filters { user_id: Some("user-3".into()), country: Some(Country::parse(b"DE")), ..Filters::default() };
    answers.push(format!("{:?}", scan(lake, EVER, &filters, &[]).await));
    answers
}

#[test]
fn compaction_leaves_few_files_and_every_answer() {
    run(async {
        let lake = in_memory().await;
        for number in 1..=6 {
            let epochs = staged(&lake, number..=number).await;
            lake.project(&epochs, TOKEN).await.unwrap();
        }
        let before = everything(&lake).await;
        assert_eq!(compact_all(&lake, &later(6, 60_000)).await, 0, "nothing is over");
        assert_eq!(compact_all(&lake, &held(6, None, later(6, DAY_MS).now_ms, later(6, DAY_MS).now_ms)).await, 0);
        // As far as this progress shows, the last epoch is not in all tables.
        assert!(compact_all(&lake, &later(5, 2 * DAY_MS)).await >= 3);
        assert_eq!(files(&lake, Table::Clicks).await, 2);
        assert_eq!(everything(&lake).await, before);
        compact_all(&lake, &later(6, 2 * DAY_MS)).await;
        for table in Table::PROJECTED {
            assert_eq!(files(&lake, table).await, 1, "{table}");
        }
        assert_eq!(compact_all(&lake, &later(6, 2 * DAY_MS)).await, 0);
        assert_eq!(everything(&lake).await, before);
        check_holds(&lake, 6).await;
        assert_eq!(lake.audit().await.unwrap(), [""; 0]);
        let cut = lake.counts(EVER.0, EVER.1, Some(&Epochs::of(0, 3))).await.unwrap();
        assert_eq!(cut.minutes, counted(&all_clicks(1..=3)));
        // A compacted file is pruned like any other.
        let index = lake.table(Table::Clicks).files().await.unwrap();
        let bounds = index.files[0].bounds;
        assert_eq!((bounds.partition, bounds.epoch), (Some((0, 0)), Some((1, 6))));
        let file = lake.table(Table::Clicks).reader(&index.files[0].path, index.files[0].size);
        let groups = file.open().await.unwrap();
        let filters =
            groups.metadata().row_group(0).columns().iter().filter(|column| column.bloom_filter_offset().is_some());
        assert_eq!(filters.count(), 2);
        // More epochs can be added as before.
        let epochs = staged(&lake, 7..=7).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        check_holds(&lake, 7).await;
    });
}

#[test]
fn a_crash_or_a_lost_reply_while_compacting_changes_no_answer() {
    run(async {
        for (lost_reply, after) in (0..8).flat_map(|after| [(false, after), (true, after)]) {
            let store = Failing::new("");
            let lake = Lake::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
            for number in 1..=3 {
                let epochs = staged(&lake, number..=number).await;
                lake.project(&epochs, TOKEN).await.unwrap();
            }
            store.fail(after, 8, lost_reply);
            let tokens = tokens();
            while let Ok(Some(_)) = lake.compact(&later(3, 2 * DAY_MS), &tokens).await {}
            store.fail(0, 0, false);
            let lake = Lake::open(store as Arc<dyn ObjectStore>).await.unwrap();
            check_holds(&lake, 3).await;
            compact_all(&lake, &later(3, 2 * DAY_MS)).await;
            check_holds(&lake, 3).await;
            assert_eq!(files(&lake, Table::Clicks).await, 1);
        }
    });
}

const KEEP: Keep = Keep { clicks_ms: DAY_MS, minutes_ms: DAY_MS, hours_ms: 2 * DAY_MS, letters_ms: 3 * DAY_MS };

#[test]
fn counts_leave_only_when_they_are_summed_and_answers_go_back_as_far_as_their_sums() {
    run(async {
        let lake = in_memory().await;
        let epochs = projections(1..=18);
        for epoch in &epochs {
            lake.project(std::slice::from_ref(epoch), TOKEN).await.unwrap();
        }
        let total = |counts: &[MinuteCounts]| counts.iter().map(MinuteCounts::total).sum::<i64>();
        let all = total(&lake.counts(EVER.0, EVER.1, None).await.unwrap().minutes);
        let end = reached(18);
        assert_eq!(lake.retain(&KEEP, &end).await.unwrap(), 0, "nothing is rolled up");
        let tokens = tokens();
        for roll_up in RollUp::ALL {
            while lake.roll_up(roll_up, &end, &tokens).await.unwrap() {}
        }
        assert!(lake.retain(&KEEP, &end).await.unwrap() > 0);
        assert_eq!(lake.retain(&KEEP, &end).await.unwrap(), 0, "once is enough");
        assert!(total(&lake.counts(EVER.0, EVER.1, None).await.unwrap().minutes) < all);
        let cut = Epochs::of(0, 18);
        let mut found = 0;
        let day = RollUp::Day.floor(epochs[0].counts[0].minute);
        lake.each_count((day, EVER.1), &cut, Selection::default(), |counts| found += counts.total()).await.unwrap();
        assert_eq!(found, all);
        // Queries that begin within an hour whose minutes are deleted are rejected, not answered incompletely.
        let inside = Minute(epochs[0].counts[0].minute.0 + 1);
        let refused = lake.each_count((inside, EVER.1), &cut, Selection::default(), |_| ()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::User, "{refused}");
        let refused = lake.each_minute((day, EVER.1), Some(&cut), Selection::default(), |_| ()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::User, "{refused}");
        // Rolling up continues, and a lost table of sums is detected.
        assert!(!lake.roll_up(RollUp::Hour, &end, &tokens).await.unwrap());
        let epochs = projections(1..=24);
        lake.project(&epochs, TOKEN).await.unwrap();
        for roll_up in RollUp::ALL {
            while lake.roll_up(roll_up, &reached(24), &tokens).await.unwrap() {}
        }
        assert!(lake.rolled_up(RollUp::Day, 0).await.unwrap() > Some(day));
    });
}

#[test]
fn raw_clicks_before_what_is_kept_are_refused() {
    run(async {
        let lake = in_memory().await;
        let epochs = staged(&lake, 1..=3).await;
        lake.project(&epochs, TOKEN).await.unwrap();
        let at = later(3, 2 * DAY_MS);
        assert_eq!(lake.retain(&KEEP, &later(0, 2 * DAY_MS)).await.unwrap(), 0);
        assert_eq!(
            lake.retain(&KEEP, &held(3, Some(at.now_ms), 0, at.now_ms)).await.unwrap(),
            0,
            "the earlier of the two"
        );
        assert_eq!(lake.retain(&KEEP, &at).await.unwrap(), 3);
        let error = lake.recount(START, EVER.1, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains("kept from"), "{error}");
        let kept = Minute(START.0 + 1_440);
        assert_eq!(lake.recount(kept, EVER.1, None).await.unwrap().minutes, []);
        // The newest ledger is kept at any age.
        lake.retain(&KEEP, &later(3, 900 * DAY_MS)).await.unwrap();
        assert_eq!(lake.epochs().await.unwrap(), Epochs::of(0, 3));
    });
}

/// A lake in memory with three epochs, one commit each, and its store.
async fn with_three_epochs() -> (Arc<dyn ObjectStore>, Lake) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = Lake::open(Arc::clone(&store)).await.unwrap();
    for number in 1..=3 {
        let epochs = staged(&lake, number..=number).await;
        lake.project(&epochs, TOKEN).await.unwrap();
    }
    (store, lake)
}

/// The last modification time of a store's newest object, in milliseconds.
async fn last_written_ms(store: &Arc<dyn ObjectStore>) -> i64 {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    listed.iter().map(|object| object.last_modified.timestamp_millis()).max().unwrap()
}

/// The files in the tables' folders, without their logs.
async fn stored(store: &Arc<dyn ObjectStore>) -> HashSet<String> {
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    let paths = all.into_iter().map(|object| object.location.to_string());
    paths.filter(|path| path.ends_with(".parquet") && !path.contains("_delta_log")).collect()
}

#[test]
fn vacuum_deletes_what_nothing_names_and_nothing_else() {
    run(async {
        let (store, lake) = with_three_epochs().await;
        let orphan =
            |epoch: u64| format!("clicks/click_date=2025-02-20/click_hour=1/0-{epoch:010}-{:032x}.parquet", 77);
        let others =
            ["ledger/0-0000000002-0000000009-0-1.parquet", "clicks_by_hour/0-0000000002-1.parquet", "ledger/x.txt"];
        for path in [orphan(3), orphan(4), orphan(5)].iter().map(String::as_str).chain(others) {
            store.put(&Path::from_url_path(path).unwrap(), "x".into()).await.unwrap();
        }
        let before = stored(&store).await;
        let written_ms = last_written_ms(&store).await;
        // Epoch 4 is staged and committed, but not in the tables yet; another process stages epoch 5.
        let named = |names: &[String]| {
            let paths =
                names.iter().map(|name| name.strip_prefix("clicks/").unwrap().to_owned()).collect::<HashSet<_>>();
            async move { Ok(paths) }
        };
        // The clock of the last epoch is from before a stop of days.
        let at = |epoch, now_ms| held(epoch, None, 0, now_ms);
        let day_later = written_ms + DAY_MS + 1_000;
        lake.vacuum(&at(3, written_ms + DAY_MS / 2), named(&[])).await.unwrap();
        assert_eq!(stored(&store).await, before, "all is young");
        lake.vacuum(&at(4, day_later), named(&[orphan(3), orphan(4)])).await.unwrap();
        let mut expected = before.clone();
        expected.remove(others[1]);
        assert_eq!(stored(&store).await, expected, "named, or of epochs that the tables do not hold");
        let vacuumed = lake.vacuum(&at(4, day_later), named(&[orphan(4)])).await.unwrap();
        expected.remove(&orphan(3));
        assert_eq!(stored(&store).await, expected);
        assert_eq!((vacuumed.files, vacuumed.bytes), (1, 1));
        // Files that compaction replaced are kept for a day.
        let compacted = LakeProgress { now_ms: day_later, ..later(3, 2 * DAY_MS) };
        compact_all(&lake, &compacted).await;
        let replaced = stored(&store).await;
        lake.vacuum(&at(3, day_later + DAY_MS / 2), named(&[])).await.unwrap();
        assert_eq!(stored(&store).await, replaced);
        lake.vacuum(&at(3, day_later + 2 * DAY_MS), named(&[])).await.unwrap();
        let left = stored(&store).await;
        let data = left.iter().filter(|path| ![orphan(4), orphan(5), others[0].to_owned()].contains(path));
        assert_eq!(data.count(), 4, "{left:?}");
        check_holds(&lake, 3).await;
        assert_eq!(lake.audit().await.unwrap(), [""; 0]);
    });
}

/// After a stop of days the first round compacts and drops: whoever reads the tables as they were before goes on for a
/// day.
#[test]
fn fault_64_what_leaves_a_table_after_a_stop_of_days_stays_for_a_day() {
    run(async {
        let (store, lake) = with_three_epochs().await;
        let before = stored(&store).await;
        let written_ms = last_written_ms(&store).await;
        // The clock of the last epoch is that of its clicks, long ago.
        let first = LakeProgress { now_ms: written_ms + 3 * DAY_MS, ..later(3, 2 * DAY_MS) };
        let none = || async { Ok(HashSet::new()) };
        assert!(compact_all(&lake, &first).await > 0);
        assert!(lake.retain(&KEEP, &first).await.unwrap() > 0);
        lake.vacuum(&first, none()).await.unwrap();
        let kept = stored(&store).await;
        assert!(before.is_subset(&kept), "{:?}", before.difference(&kept));
        lake.vacuum(&LakeProgress { now_ms: first.now_ms + DAY_MS - 1, ..first.clone() }, none()).await.unwrap();
        assert!(before.is_subset(&stored(&store).await));
        lake.vacuum(&LakeProgress { now_ms: first.now_ms + DAY_MS + 1_000, ..first }, none()).await.unwrap();
        // Files that are still part of a table, especially the newest ledger, are kept.
        let left = stored(&store).await;
        assert!(before.intersection(&left).count() < before.len() / 2, "{left:?}");
        assert_eq!(lake.audit().await.unwrap(), [""; 0]);
    });
}

#[test]
fn records_name_what_they_staged() {
    run(async {
        let log = EpochLog::new(Arc::new(InMemory::new()), 0);
        let fingerprints = crate::epoch_log::Fingerprints { config: 1, key: 2 };
        let (mut writer, state) = log.claim(1, 7, fingerprints).await.unwrap();
        let (first, _) = log.read(1).await.unwrap().unwrap();
        let (_, files) = epoch(2);
        let staged: Vec<StagedFile> = files.into_iter().map(|file| file.staged).collect();
        let mut record = adtally_model::Epoch { claim: false, staged: staged.clone(), ..first };
        record.progress.number = state.progress.number + 1;
        writer.append(&mut record).await.unwrap();
        let named = log.staged_paths().await.unwrap();
        assert_eq!(named, staged.into_iter().map(|file| file.path).collect::<HashSet<_>>());
    });
}
