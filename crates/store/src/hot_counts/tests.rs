//! Compares hot counts with plain maps.

use super::{HotCounts, PendingEpoch, Progress, Snapshot};
use adtally_model::{
    ClickColumns, ClickRef, CountedClicks, Country, Frontiers, Identity, LinePositions, Minute, MinuteCounts, Watermark,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Click = (i64, u64, u8);

/// The counts of clicks by minute, as committed by an epoch.
fn counts(clicks: &[Click]) -> Vec<MinuteCounts> {
    let mut sums: BTreeMap<i64, BTreeMap<(u64, u8), i64>> = BTreeMap::new();
    for &(minute, ad, country) in clicks {
        *sums.entry(minute).or_default().entry((ad, country)).or_default() += 1;
    }
    let minutes = sums.into_iter().map(|(minute, rows)| {
        let mut counts = MinuteCounts::empty(Minute(minute));
        for ((ad, country), clicks) in rows {
            counts.push(ad, Country::from_rank(country).unwrap(), clicks);
        }
        counts
    });
    minutes.collect()
}

fn progress(epoch: u64, closed: i64, newest: i64) -> Progress {
    let at = |minute: i64| Watermark::at(Minute(minute).start_ms());
    let frontiers = Frontiers { watermark: at(closed), closed: at(closed), final_: at(closed), expired: at(closed) };
    Progress { number: epoch, frontiers, newest_click_ms: Some(Minute(newest).start_ms()), ..Progress::default() }
}

fn commit(hot: &HotCounts, epoch: u64, closed: i64, clicks: &[Click]) {
    let newest = clicks.iter().map(|click| click.0).max().unwrap_or_default().max(closed);
    let pending = PendingEpoch { epoch, counts: counts(clicks).into(), staged: Vec::new() };
    hot.commit(progress(epoch, closed, newest), Arc::new(pending));
}

/// The most clicked ads, computed naively.
fn naive_top<'a>(clicks: impl Iterator<Item = &'a Click>, limit: usize) -> Vec<(u64, u64)> {
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for &(_, ad, _) in clicks {
        *sums.entry(ad).or_default() += 1;
    }
    let mut rows: Vec<(u64, u64)> = sums.into_iter().collect();
    rows.sort_by_key(|&(ad, clicks)| (std::cmp::Reverse(clicks), ad));
    rows.truncate(limit);
    rows
}

fn top(snapshot: &Snapshot, from: i64, to: i64, country: Option<u8>, limit: usize) -> Vec<(u64, u64)> {
    let mut sums = snapshot.sums();
    let country = country.map(|rank| Country::from_rank(rank).unwrap());
    snapshot.add_minutes(&mut sums, Minute(from), Minute(to), country);
    sums.top(limit)
}

/// The hot counts after a restart: minutes from `live_from` on at once, earlier ones later.
fn restarted(clicks: &[Click], live_from: i64, are_final: bool) -> HotCounts {
    let (live, older): (Vec<Click>, Vec<Click>) = clicks.iter().partition(|click| click.0 >= live_from);
    let hot = HotCounts::new(60);
    let progress = progress(9, if are_final { 120 } else { 100 }, 119);
    hot.restore(progress, Some(Minute(live_from)), &counts(&live), 9, Vec::new());
    hot.extend_back(Minute(0), &counts(&older));
    hot
}

fn click() -> impl Strategy<Value = Click> {
    (100_i64..110, prop_oneof![0_u64..6, Just(u64::MAX >> 1), 1_000_u64..1_040], 0_u8..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any epochs, sums over any span equal those of all committed clicks, also when all minutes are final and
    /// summed by tens, and when some came later from the lake.
    #[test]
    fn sums_are_exact(
        epochs in vec(vec(click(), 0..80), 1..8),
        (from, minutes) in (99_i64..110, 1_i64..24),
        limit in 0_usize..9,
        are_final: bool,
        restored_from in proptest::option::of(100_i64..112),
    ) {
        let mut hot = HotCounts::new(60);
        for (number, clicks) in epochs.iter().enumerate() {
            commit(&hot, number as u64 + 1, 100, clicks);
        }
        if are_final {
            commit(&hot, 9, 120, &[]);
        }
        if let Some(live_from) = restored_from {
            hot = restarted(&epochs.concat(), live_from, are_final);
        }
        let snapshot = hot.snapshot();
        let tens = epochs.concat().iter().filter(|click| click.0 < 110).count().min(1);
        prop_assert_eq!(snapshot.spans.len(), if are_final { tens } else { 0 });
        let all: Vec<Click> = epochs.concat();
        let within = |click: &&Click| (from..from + minutes).contains(&click.0);
        prop_assert_eq!(top(&snapshot, from, from + minutes, None, limit), naive_top(all.iter().filter(within), limit));
        let of_country = all.iter().filter(within).filter(|click| click.2 == 1);
        prop_assert_eq!(top(&snapshot, from, from + minutes, Some(1), limit), naive_top(of_country, limit));
        for ad in [0, 3, 1_001, u64::MAX >> 1, 77] {
            let expected = all.iter().filter(within).filter(|click| click.1 == ad).count() as i64;
            let found: i64 = snapshot.ad_minutes(ad, Minute(from), Minute(from + minutes), None).iter().map(|row| row.1).sum();
            prop_assert_eq!(found, expected);
        }
        let minute: Vec<Click> = all.iter().copied().filter(|click| click.0 == 104).collect();
        prop_assert_eq!(snapshot.minute_counts(Minute(104)), counts(&minute).pop());
    }

    /// Sums can mix clicks by ad id with hot columns.
    #[test]
    fn rows_by_ad_are_added_to_columns(hot_clicks in vec(click(), 0..80), others in vec(click(), 0..80)) {
        let hot = HotCounts::new(60);
        commit(&hot, 1, 100, &hot_clicks);
        let snapshot = hot.snapshot();
        let mut sums = snapshot.sums();
        snapshot.add_minutes(&mut sums, Minute(0), Minute(1_000), None);
        for &(_, ad, _) in &others {
            sums.add(ad, 1);
        }
        prop_assert_eq!(sums.top(5), naive_top(hot_clicks.iter().chain(&others), 5));
    }
}

#[test]
fn ties_are_broken_by_ascending_ad_at_the_edge_of_the_limit() {
    let hot = HotCounts::new(60);
    let clicks: Vec<Click> = [9, 3, 7, 5, 1, 8].iter().map(|&ad| (100, ad, 0)).collect();
    commit(&hot, 1, 101, &clicks);
    assert_eq!(top(&hot.snapshot(), 100, 101, None, 3), [(1, 1), (3, 1), (5, 1)]);
    assert_eq!(top(&hot.snapshot(), 100, 101, None, 0), []);
}

#[test]
fn minutes_that_are_neither_hot_nor_live_are_dropped_and_said_to_be() {
    let hot = HotCounts::new(10);
    commit(&hot, 1, 100, &[(100, 1, 0), (101, 1, 0)]);
    assert_eq!(hot.snapshot().complete_from, Some(Minute(90)));
    commit(&hot, 2, 115, &[(115, 1, 0)]);
    let snapshot = hot.snapshot();
    assert_eq!(snapshot.complete_from, Some(Minute(105)));
    assert_eq!((snapshot.minute_counts(Minute(101)), snapshot.rows()), (None, 1));
    assert_eq!(snapshot.pending.len(), 2, "the lake does not hold them yet");
    hot.projected(1);
    let snapshot = hot.snapshot();
    assert_eq!((snapshot.lake_epoch, snapshot.pending.len()), (1, 1));
}

#[test]
fn open_clicks_are_shown_until_their_epoch_is_committed() {
    let hot = HotCounts::new(10);
    let mut columns = ClickColumns::default();
    let country = Country::UNKNOWN;
    let click = ClickRef { event_time_ms: 1, ad_id: 4, country, ip: 0, user_id: b"u", click_id: b"" };
    columns.push(&click, 0, Identity(1));
    let clicks = CountedClicks {
        columns: Arc::new(columns),
        rows: vec![0],
        input: "a".into(),
        positions: LinePositions::Text(0),
    };
    hot.open(1, Arc::new(clicks.clone()));
    hot.open(2, Arc::new(clicks));
    assert_eq!(hot.snapshot().open_clicks().count(), 2);
    commit(&hot, 1, 0, &[(0, 4, 0)]);
    assert_eq!(hot.snapshot().open_clicks().count(), 1);
}

#[test]
fn the_ad_index_is_rebuilt_when_most_of_its_ads_are_gone() {
    let hot = HotCounts::new(1);
    let many: Vec<Click> = (0..(1 << 20) + 10).map(|ad| (100, ad, 0)).collect();
    commit(&hot, 1, 100, &many);
    assert_eq!(hot.snapshot().sums().dense.len(), many.len());
    commit(&hot, 2, 200, &[(200, 5, 0), (200, 5_000_000, 1)]);
    let snapshot = hot.snapshot();
    assert_eq!(snapshot.sums().dense.len(), 2);
    assert_eq!(top(&snapshot, 200, 201, None, 5), [(5, 1), (5_000_000, 1)]);
}

/// A correction subtracts clicks in a final minute that is already in a sum; readers then see the rest.
#[test]
fn corrections_change_minutes_that_are_summed_up() {
    let hot = HotCounts::new(60);
    let (us, minute) = (Country::parse(b"US"), Minute(104));
    let commit_signed = |epoch: u64, rows: &[(u64, i64)]| {
        let mut counts = MinuteCounts::empty(minute);
        rows.iter().for_each(|&(ad, clicks)| counts.push(ad, us, clicks));
        let pending = PendingEpoch { epoch, counts: [counts].into(), staged: Vec::new() };
        hot.commit(progress(epoch, 150, 150), Arc::new(pending));
        let snapshot = hot.snapshot();
        let found = [None, Some(us)].map(|country| {
            let mut sums = snapshot.sums();
            snapshot.add_minutes(&mut sums, Minute(100), Minute(110), country);
            sums.top(10)
        });
        assert_eq!(found[0], found[1]);
        (found[0].clone(), snapshot.minute_counts(minute).unwrap().rows().map(|row| (row.0, row.2)).collect::<Vec<_>>())
    };
    let many = 5_000_000_000;
    let rows = [(1, many), (2, 7), (3, 2)];
    let top = |rows: &[(u64, i64)]| rows.iter().map(|&(ad, clicks)| (ad, clicks as u64)).collect::<Vec<_>>();
    assert_eq!(commit_signed(1, &rows), (top(&rows), rows.to_vec()));
    assert_eq!(hot.snapshot().spans.len(), 1, "a final span is summed up");
    let left = [(1, many - 1), (2, 7), (4, 1)];
    assert_eq!(commit_signed(2, &[(1, -1), (3, -2), (4, 1)]), (top(&left), left.to_vec()));
    assert_eq!(hot.snapshot().spans.len(), 1);
    assert_eq!(commit_signed(3, &[(1, 1 - many), (2, -6)]), (vec![(2, 1), (4, 1)], vec![(2, 1), (4, 1)]));
    assert_eq!(hot.snapshot().ad_minutes(1, Minute(0), Minute(200), None), []);
}
