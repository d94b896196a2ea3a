//! Random lakes with late lines and copies: after a run, every click counts once.

use crate::{Corrected, CorrectionParts, Corrections, ReconcileOptions, ReconcileReport, reconcile, revert};
use adtally_model::dead_letter::JudgedClick;
use adtally_model::reconcile::Cause;
use adtally_model::{
    ClickColumns, ClickRef, Country, DeadLetter, Epoch, Frontiers, Identity, LinePositions, Minute, MinuteCounts,
    Progress, Result, Verdict, Watermark,
};
use adtally_store::epoch_log::{EpochLogs, Fingerprints, LogWriter};
use adtally_store::lake::{ClickRows, EpochProjection, Lake, LakeStore, Selection};
use object_store::memory::InMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const START: Minute = Minute(29_000_000);
const MINUTES: i64 = 150;
const DAY_MS: i64 = 86_400_000;
/// Each takes some seconds without optimisation.
const SEEDS: u64 = 4;

const FINGERPRINTS: Fingerprints = Fingerprints { config: 1, key: 2 };

/// A click: its time, ad, user, country, and click id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Click {
    at_ms: i64,
    ad: u64,
    user: u32,
    country: &'static str,
    has_id: bool,
}

impl Click {
    /// What makes two lines the same click.
    fn identity(&self) -> (i64, u64, u32, bool) {
        (self.at_ms, self.ad, self.user, self.has_id)
    }

    fn with<T>(&self, then: impl FnOnce(&ClickRef<'_>) -> T) -> T {
        let user = if self.has_id { "shared user".to_owned() } else { format!("user {}", self.user) };
        let click_id = if self.has_id { format!("click {}", self.user) } else { String::new() };
        then(&ClickRef {
            event_time_ms: self.at_ms,
            ad_id: self.ad,
            country: Country::parse(self.country.as_bytes()),
            ip: 0xffff_0a00_0001,
            user_id: user.as_bytes(),
            click_id: click_id.as_bytes(),
        })
    }
}

fn counts_of<'a>(clicks: impl IntoIterator<Item = &'a Click>) -> Vec<MinuteCounts> {
    let mut sums: BTreeMap<Minute, BTreeMap<(u64, Country), i64>> = BTreeMap::new();
    for click in clicks {
        let key = (click.ad, Country::parse(click.country.as_bytes()));
        *sums.entry(Minute::of(click.at_ms)).or_default().entry(key).or_default() += 1;
    }
    let minute = |(minute, sums): (Minute, BTreeMap<(u64, Country), i64>)| {
        let mut counts = MinuteCounts::empty(minute);
        sums.into_iter().for_each(|((ad, country), clicks)| counts.push(ad, country, clicks));
        counts
    };
    sums.into_iter().map(minute).collect()
}

/// Logs and a lake in memory.
struct World {
    logs: EpochLogs,
    lake: Arc<Lake>,
    writers: BTreeMap<u32, (LogWriter, Progress)>,
    position: u64,
    tokens: Arc<AtomicU64>,
    /// The wall clock, in milliseconds since the Unix epoch.
    clock_ms: Arc<AtomicI64>,
}

impl World {
    async fn new(partitions: u32) -> World {
        let store = Arc::new(InMemory::new());
        let logs = EpochLogs::new(store.clone());
        let lake = Arc::new(Lake::open(Arc::new(InMemory::new())).await.unwrap());
        let mut world = World {
            logs,
            lake,
            writers: BTreeMap::new(),
            position: 0,
            tokens: Arc::default(),
            clock_ms: Arc::new((START.start_ms() + 1_000_000).into()),
        };
        for partition in 0..partitions {
            let claimed = world.logs.log(partition).claim(1, 7 + u128::from(partition), FINGERPRINTS).await.unwrap();
            world.writers.insert(partition, (claimed.0, claimed.1.progress));
            world.project(partition, Vec::new(), Vec::new(), 1).await;
        }
        world
    }

    /// Projects an epoch whose record exists.
    async fn project(
        &self,
        partition: u32,
        counts: Vec<MinuteCounts>,
        staged: Vec<adtally_model::StagedFile>,
        number: u64,
    ) {
        let (epoch, _) = self.logs.log(partition).read(number).await.unwrap().unwrap();
        let progress = Progress { clock_ms: epoch.progress.clock_ms.max(START.start_ms()), ..epoch.progress };
        let projection =
            EpochProjection { progress, counts: counts.into(), staged, inputs: Arc::default(), correction: None };
        self.lake.project(&[projection], 9).await.unwrap();
    }

    /// Commits an epoch that stores clicks and late lines, and counts `counted`. Minutes before `final_to` are final.
    async fn commit(
        &mut self,
        partition: u32,
        stored: &[Click],
        late: &[Click],
        counted: &[MinuteCounts],
        final_to: Minute,
    ) {
        let late = late.iter().map(|click| (Verdict::Late, final_to.start_ms(), *click)).collect::<Vec<_>>();
        self.commit_lines(partition, stored, &late, counted, final_to).await;
    }

    /// The same, with any dead letters: verdict, time of reading, click.
    async fn commit_lines(
        &mut self,
        partition: u32,
        stored: &[Click],
        letters: &[(Verdict, i64, Click)],
        counted: &[MinuteCounts],
        final_to: Minute,
    ) {
        let mut columns = ClickColumns::default();
        for click in stored {
            self.position += 1;
            click.with(|click| columns.push(click, 0, Identity(0)));
        }
        let rows: Vec<u32> = (0..stored.len() as u32).collect();
        let parts: Vec<ClickRows<'_>> = rows
            .chunks(1)
            .map(|row| ClickRows {
                batch: &columns,
                rows: row,
                input_name: "a.log",
                positions: LinePositions::Record(self.position + u64::from(row[0])),
                sign: 1,
            })
            .collect();
        let verdicts: Vec<Verdict> = letters.iter().map(|&(verdict, ..)| verdict).collect();
        let letters: Vec<DeadLetter> = letters
            .iter()
            .map(|&(verdict, received_at_ms, click)| DeadLetter {
                verdict,
                reason: "not on time".into(),
                payload: Vec::new(),
                header: None,
                input: "a.log".into(),
                position: 1_000_000 + click.at_ms as u64 % 1_000_000,
                received_at_ms,
                click: Some(click.with(|click| JudgedClick::new(click, Watermark::NONE))),
            })
            .collect();
        let (writer, before) = self.writers.get_mut(&partition).unwrap();
        let number = before.number + 1;
        let token = u128::from(self.tokens.fetch_add(1, Ordering::Relaxed));
        let files = LakeStore::encode(self.lake.as_ref(), &parts, &letters, (partition, number), token).unwrap();
        self.lake.stage(&files).await.unwrap();
        let staged: Vec<_> = files.into_iter().map(|file| file.staged).collect();
        let at = Watermark::at(final_to.start_ms());
        let mut ledger = before.ledger;
        ledger.book(Verdict::Counted, stored.len() as u64);
        verdicts.into_iter().for_each(|verdict| ledger.book(verdict, 1));
        let progress = Progress {
            number,
            clock_ms: before.clock_ms.max(self.clock_ms.load(Ordering::Relaxed)),
            frontiers: Frontiers { watermark: at, closed: at, final_: at, expired: at },
            newest_click_ms: stored.iter().map(|click| click.at_ms).max().max(before.newest_click_ms),
            gone: ledger,
            ledger,
            ..*before
        };
        let mut epoch = Epoch {
            progress,
            writer: 0,
            predecessor: 0,
            oldest_needed: 1,
            claim: false,
            inputs: Vec::new(),
            counts: counted.to_vec(),
            identities: Vec::new(),
            staged: staged.clone(),
            reconcile: None,
            config_fingerprint: 0,
            key_fingerprint: 0,
            base: None,
        };
        writer.append(&mut epoch).await.unwrap();
        *before = epoch.progress;
        self.project(partition, counted.to_vec(), staged, number).await;
    }

    async fn corrections(&self) -> Corrections {
        let (tokens, clock_ms) = (Arc::clone(&self.tokens), Arc::clone(&self.clock_ms));
        Corrections::claim(CorrectionParts {
            logs: self.logs.clone(),
            lake: self.lake.clone(),
            readers: None,
            fingerprints: FINGERPRINTS,
            random: Arc::new(move || 1_000 + u128::from(tokens.fetch_add(1, Ordering::Relaxed))),
            now_ms: Arc::new(move || clock_ms.load(Ordering::Relaxed)),
        })
        .await
        .unwrap()
    }

    async fn reconcile(&self) -> Result<ReconcileReport> {
        let options = ReconcileOptions::all("command");
        reconcile(&self.lake, &self.logs, Some(&mut self.corrections().await), &options, &|_, _| {}).await
    }

    async fn revert(&self, run: u64) -> Result<ReconcileReport> {
        revert(&self.lake, &self.logs, &mut self.corrections().await, run, "command").await
    }

    /// The counts of all minutes.
    async fn counts(&self) -> Vec<MinuteCounts> {
        self.lake.counts(START, Minute(START.0 + 2 * MINUTES), None).await.unwrap().minutes
    }

    async fn check(&self, expected: &[MinuteCounts], what: &str) {
        let ever = (START, Minute(START.0 + 2 * MINUTES));
        assert_eq!(self.lake.counts(ever.0, ever.1, None).await.unwrap().minutes, expected, "{what}: counts");
        assert_eq!(self.lake.recount(ever.0, ever.1, None).await.unwrap().minutes, expected, "{what}: raw clicks");
    }
}

/// Draws numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

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

#[test]
fn after_a_run_every_click_counts_once() {
    run(async {
        for seed in 0..SEEDS {
            let mut random = Random(seed * 31 + 7);
            let mut world = World::new(1 + seed as u32 % 2).await;
            let partitions = world.writers.len() as u64;
            let mut all: BTreeSet<Click> = BTreeSet::new();
            let mut identities = BTreeSet::new();
            for round in 0..3_i64 {
                let final_to = Minute(START.0 + MINUTES * (round + 1) / 3);
                // The clock jumps by up to a day either way.
                let jump_ms = random.below(2 * DAY_MS as u64) as i64 - DAY_MS;
                world.clock_ms.store(final_to.end_ms() + jump_ms, Ordering::Relaxed);
                for partition in 0..partitions as u32 {
                    let (mut stored, mut late) = (Vec::new(), Vec::new());
                    for _ in 0..random.below(60) {
                        let click = Click {
                            at_ms: START.start_ms() + random.below((final_to.0 - START.0) as u64 * 60) as i64 * 1_000,
                            ad: [1, 7, i64::MAX as u64][random.below(3) as usize],
                            user: random.below(40) as u32,
                            country: ["US", "DE"][random.below(2) as usize],
                            has_id: random.below(4) == 0,
                        };
                        let is_new = identities.insert(click.identity());
                        let known = all.iter().find(|known| known.identity() == click.identity()).copied();
                        // A copy is never in another country here: which one counts would depend on the order.
                        let click = known.unwrap_or(click);
                        all.insert(click);
                        match random.below(6) {
                            0 | 1 => late.push(click),
                            // Stored although it was stored before: a defect.
                            2 => stored.extend([click, click]),
                            3 if !is_new => {}
                            _ => stored.push(click),
                        }
                    }
                    world.commit(partition, &stored, &late, &counts_of(&stored), final_to).await;
                }
                if random.below(2) == 0 {
                    world.reconcile().await.unwrap();
                }
            }
            for partition in 0..partitions as u32 {
                world.commit(partition, &[], &[], &[], Minute(START.0 + 2 * MINUTES)).await;
            }
            let (before, known) = (world.counts().await, world.lake.epochs().await.unwrap());
            let report = world.reconcile().await.unwrap();
            assert_eq!(report.damaged_hours, 0, "seed {seed}");
            world.check(&counts_of(&all), &format!("seed {seed}")).await;
            let ever = (START, Minute(START.0 + 2 * MINUTES));
            let as_of = world.lake.counts(ever.0, ever.1, Some(&known)).await.unwrap().minutes;
            assert_eq!(as_of, before, "seed {seed}: what was known before");
            assert!(!world.reconcile().await.unwrap().has_findings(), "seed {seed}");
            if report.has_findings() {
                world.revert(report.run.unwrap()).await.unwrap();
                world.check(&before, &format!("seed {seed}, reverted")).await;
                assert!(world.revert(report.run.unwrap()).await.is_err(), "seed {seed}: reverted once");
                assert!(!world.reconcile().await.unwrap().has_findings(), "seed {seed}: it stays reverted");
                world.check(&before, &format!("seed {seed}, reverted")).await;
            }
        }
    });
}

/// A line of the future is recovered if it was at most 15 minutes ahead of the clock when it was read. Others are for review.
#[test]
fn lines_that_were_slightly_ahead_of_the_clock_are_recovered_once() {
    run(async {
        let mut world = World::new(1).await;
        let click = |minute: i64, user| {
            let at_ms = START.start_ms() + minute * 60_000;
            Click { at_ms, ad: 7, user, country: "US", has_id: false }
        };
        let stored = [click(0, 1), click(20, 2)];
        let read_ms = |ahead_ms: i64, click: Click| (Verdict::Future, click.at_ms - ahead_ms, click);
        let letters = [
            read_ms(900_000, click(20, 3)),
            read_ms(60_001, click(21, 4)),
            // The same, and one that was logged again on time.
            read_ms(60_001, click(21, 4)),
            read_ms(100_000, click(20, 2)),
            // Further ahead.
            read_ms(900_001, click(20, 5)),
            read_ms(86_400_000, click(22, 6)),
        ];
        let end = Minute(START.0 + MINUTES);
        world.commit_lines(0, &stored, &letters, &counts_of(&stored), end).await;
        let report = world.reconcile().await.unwrap();
        let expected = [(Cause::Future, Corrected { rows: 2, clicks: 2 })];
        assert_eq!((report.damaged_hours, report.findings), (0, expected.into_iter().collect()));
        let all = [stored[0], stored[1], click(20, 3), click(21, 4)];
        world.check(&counts_of(&all), "recovered").await;
        assert!(!world.reconcile().await.unwrap().has_findings());
    });
}

#[test]
fn a_count_that_differs_from_the_stored_clicks_is_repaired_once() {
    run(async {
        let mut world = World::new(2).await;
        let click = |minute: i64, user| {
            let at_ms = START.start_ms() + minute * 60_000;
            Click { at_ms, ad: 7, user, country: "US", has_id: true }
        };
        let first: Vec<Click> = (0..MINUTES).map(|minute| click(minute, 1)).collect();
        let mut counted = counts_of(&first);
        counted[0].clicks[0] += 3;
        counted.pop();
        let end = Minute(START.0 + MINUTES);
        world.commit(0, &first, &[], &counted, end).await;
        let second = [click(3, 2)];
        world.commit(1, &second, &[], &counts_of(&second), end).await;
        let report = world.reconcile().await.unwrap();
        // One count has three clicks too many, and another one lacks a click: by minute, and by hour and day, which are summed
        // from minutes.
        let expected = [
            (Cause::Count, Corrected { rows: 2, clicks: -2 }),
            (Cause::HourCount, Corrected { rows: 2, clicks: -2 }),
            (Cause::DayCount, Corrected { rows: 1, clicks: -2 }),
        ];
        assert_eq!((report.damaged_hours, report.findings), (0, expected.into_iter().collect()));
        let all = counts_of(first.iter().chain(&second));
        world.check(&all, "repaired").await;
        assert!(!world.reconcile().await.unwrap().has_findings());
        let hours = |counts: &[MinuteCounts]| -> i64 { counts.iter().map(MinuteCounts::total).sum() };
        for (from, to) in [(START.0 - START.0 % 1_440, START.0 + 1_440), (START.0, START.0 + 120)] {
            let mut clicks = 0;
            let cut = world.lake.epochs().await.unwrap();
            let span = (Minute(from), Minute(to));
            let counts = world.lake.each_count(span, &cut, Selection::default(), |counts| clicks += counts.total());
            counts.await.unwrap();
            let within: Vec<MinuteCounts> = all.iter().filter(|counts| counts.minute < span.1).cloned().collect();
            assert_eq!(clicks, hours(&within), "{span:?}");
        }
    });
}
