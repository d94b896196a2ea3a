//! Compares answers from hot counts, the lake and epochs between them with plain sums.

use super::{Embedded, HotPartitions};
use crate::hot_counts::{HotCounts, PendingEpoch};
use crate::lake::{EpochProjection, Lake};
use crate::questions::{Cost, Filters, KnownAt, Question, Questions, Span};
use adtally_model::{Country, ErrorKind, Frontiers, Minute, MinuteCounts, Progress, Watermark};
use object_store::memory::InMemory;
use std::collections::BTreeMap;
use std::sync::Arc;

const START: i64 = 29_000_000;
const MINUTES: i64 = 200;
const HOT_MINUTES: u32 = 10;

/// Each minute has clicks of its own ad, of a common one in two countries, and of one every seven minutes.
fn counts(minute: i64) -> MinuteCounts {
    let mut counts = MinuteCounts::empty(Minute(START + minute));
    if minute % 7 == 0 {
        counts.push(3, Country::parse(b"US"), 5);
    }
    counts.push(42, Country::parse(b"DE"), 1);
    counts.push(42, Country::parse(b"US"), 2);
    counts.push(1_000 + minute as u64, Country::parse(b"DE"), 1);
    counts
}

fn progress(epoch: u64) -> Progress {
    let end = Minute(START + epoch as i64 * MINUTES / 4).start_ms();
    let at = Watermark::at(end);
    Progress {
        number: epoch,
        frontiers: Frontiers { watermark: at, closed: at, final_: at, expired: at },
        newest_click_ms: Some(end - 1),
        largest_guarded_ms: Some(end - 1),
        ..Progress::default()
    }
}

/// Four epochs of 50 minutes each. The lake contains three of them, but the hot counts know only about the first two.
async fn embedded() -> Embedded {
    let hot = Arc::new(HotCounts::new(HOT_MINUTES));
    let lake = Arc::new(Lake::open(Arc::new(InMemory::new())).await.unwrap());
    let mut epochs = Vec::new();
    for epoch in 1..=4_u64 {
        let end = epoch as i64 * MINUTES / 4;
        let counts: Arc<[MinuteCounts]> = (end - MINUTES / 4..end).map(counts).collect();
        let pending = PendingEpoch { epoch, counts: counts.clone(), staged: Vec::new() };
        hot.commit(progress(epoch), Arc::new(pending));
        epochs.push(EpochProjection {
            progress: Progress { log_id: 1, number: epoch, ..Progress::default() },
            counts,
            staged: Vec::new(),
            inputs: Arc::default(),
            correction: None,
        });
    }
    lake.project(&epochs[..3], 1).await.unwrap();
    hot.projected(2);
    Embedded::new(HotPartitions::of(0, hot), lake)
}

fn question(from: i64, to: i64, country: Option<Country>) -> Question {
    let filters = Filters { country, ..Filters::default() };
    Question { filters, ..Question::about(Span::Between(Minute(START + from), Minute(START + to))) }
}

#[tokio::test]
async fn ranges_over_all_stores_are_exact() {
    let embedded = embedded().await;
    for (from, to) in [(0, 200), (-10, 300), (195, 200), (30, 31), (99, 151), (40, 191), (0, 5)] {
        for country in [None, Some(Country::parse(b"DE")), Some(Country::parse(b"FR"))] {
            let asked = question(from, to, country);
            let mut sums: BTreeMap<u64, BTreeMap<i64, u64>> = BTreeMap::new();
            for minute in from.max(0)..to.min(MINUTES) {
                for (ad, _, clicks) in counts(minute).rows().filter(|row| country.is_none_or(|only| only == row.1)) {
                    *sums.entry(ad).or_default().entry(minute).or_default() += clicks.unsigned_abs();
                }
            }
            let mut top: Vec<(u64, u64)> = sums.iter().map(|(&ad, minutes)| (ad, minutes.values().sum())).collect();
            top.sort_by_key(|&(ad, clicks)| (std::cmp::Reverse(clicks), ad));
            top.truncate(20);
            assert_eq!(embedded.top_ads(&asked, 20).await.unwrap().ads, top, "{asked:?}");
            for ad in [3, 42, 1_030, 1_120, 7] {
                let expected: Vec<u64> = (from..to)
                    .map(|minute| sums.get(&ad).and_then(|minutes| minutes.get(&minute)).copied().unwrap_or_default())
                    .collect();
                let found = embedded.ad_clicks(ad, &asked, true).await.unwrap();
                let series: Vec<u64> = found.series.unwrap().iter().map(|row| row.clicks).collect();
                assert_eq!((found.clicks, series), (expected.iter().sum(), expected), "{ad} {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_an_answer_takes_is_known_before() {
    let embedded = embedded().await;
    let last = |minutes| Question { span: Span::Last(minutes), ..question(0, 1, None) };
    let check = |question: Question, expected: Cost| assert_eq!(embedded.cost(&question), expected, "{question:?}");
    check(last(HOT_MINUTES), Cost::RecentCounts);
    check(last(HOT_MINUTES + 1), Cost::OlderCounts);
    check(Question { include_open: true, ..last(HOT_MINUTES) }, Cost::RecentCounts);
    check(question(190, 200, Some(Country::parse(b"DE"))), Cost::RecentCounts);
    check(question(189, 200, Some(Country::parse(b"DE"))), Cost::OlderCounts);
    check(question(200, 900, None), Cost::RecentCounts);
    let filters = Filters { user_id: Some("u".into()), ..Filters::default() };
    check(Question { filters, ..last(1) }, Cost::RawClicks);
    let nothing = Embedded::new(HotPartitions::of(0, Arc::new(HotCounts::new(1))), Arc::clone(&embedded.lake));
    assert_eq!(nothing.cost(&last(10_080)), Cost::RecentCounts, "before any click");
}

#[tokio::test]
async fn the_past_is_refused() {
    let embedded = embedded().await;
    for known_at in [KnownAt::Time(0), KnownAt::Revision(embedded.revision())] {
        let asked = Question { as_of: Some(known_at), ..question(0, 200, None) };
        let refused = [embedded.ad_clicks(42, &asked, false).await.err(), embedded.top_ads(&asked, 1).await.err()];
        assert_eq!(refused.map(|error| error.map(|error| error.kind())), [Some(ErrorKind::User); 2], "{asked:?}");
    }
}
