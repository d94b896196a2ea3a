//! Feeds lines to a partition like the run loop, and folds the committed epochs.

use crate::oracle::Line;
use adtally_model::fold::merge_all;
use adtally_model::{
    Base, ClickColumns, ClickRef, Country, DeadLetter, DecodedBatch, Epoch, Fold, IdentityKey, InputId, InputRow,
    Ledger, LiveMinute, Minute, MinuteIdentities, PartitionState, Progress,
};
use adtally_pipeline::{ClockReading, EpochDraft, Partition, PendingBatch, RunEnd, TimeSettings};
use std::collections::BTreeMap;

/// Bytes of a line in these tests.
pub(crate) const LINE_BYTES: u64 = 10;

/// A clock that stands still.
pub(crate) fn clock(ms: i64) -> ClockReading {
    ClockReading { guarded_ms: ms, wall_ms: ms, agrees: true }
}

/// A time after every event time of the tests.
pub(crate) const LATER: i64 = 4_000_000_000_000;

/// A row of an unread input.
pub(crate) fn new_input(id: u64) -> InputRow {
    InputRow::new(InputId(id), format!("input-{id}"), 0)
}

/// A batch of lines that begins with line number `first` of its input.
pub(crate) fn batch(input: u64, first: u64, lines: &[Line]) -> PendingBatch {
    let key = IdentityKey::new([3; 16]);
    let mut clicks = ClickColumns::default();
    for (number, line) in lines.iter().enumerate() {
        let user = line.who.to_string();
        let click = ClickRef {
            event_time_ms: line.at,
            ad_id: line.ad,
            country: Country::parse(line.country.as_bytes()),
            ip: 1,
            user_id: user.as_bytes(),
            click_id: b"",
        };
        let identity = key.identify(&adtally_model::identity::IdentityFields {
            event_time_ms: line.at,
            ad_id: line.ad,
            ip: 1,
            country: click.country.rank(),
            user_id: user.as_bytes(),
            click_id: b"",
        });
        clicks.push(&click, (number as u64 * LINE_BYTES) as u32, identity);
    }
    PendingBatch::new(DecodedBatch {
        input: InputId(input),
        from: first * LINE_BYTES,
        to: (first + lines.len() as u64) * LINE_BYTES,
        clicks,
        rejected: Vec::new(),
        nul_bytes: 0,
        text: Vec::new(),
    })
}

/// An epoch log in memory.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) epochs: Vec<Epoch>,
    /// The dead letters of all epochs.
    pub(crate) letters: Vec<DeadLetter>,
}

impl Log {
    /// Commits a draft. A base needs the counts of older epochs.
    pub(crate) fn commit(&mut self, draft: EpochDraft) {
        assert_eq!(draft.progress.number, self.epochs.len() as u64 + 1);
        let counts = draft.windows.finish();
        self.letters.extend(draft.dead_letters);
        let base = draft.progress.number.is_multiple_of(64).then(|| {
            let minutes = draft.old_minutes.iter().map(|(minute, begun, identities)| {
                let earlier = self.epochs.iter().flat_map(|epoch| &epoch.counts).chain(&counts);
                let parts = earlier.filter(|counts| counts.minute == *minute).cloned().collect();
                LiveMinute {
                    begun: *begun,
                    identities: MinuteIdentities { minute: *minute, identities: identities.clone() },
                    counts: merge_all(*minute, parts),
                }
            });
            Box::new(Base { inputs: draft.inputs.clone(), minutes: minutes.collect() })
        });
        self.epochs.push(Epoch {
            progress: Progress { log_id: 7, ..draft.progress },
            writer: 1,
            predecessor: u128::from(draft.progress.number - 1),
            oldest_needed: 1,
            claim: false,
            reconcile: None,
            inputs: draft.inputs,
            counts,
            identities: draft.identities,
            staged: Vec::new(),
            config_fingerprint: 0,
            key_fingerprint: 0,
            base,
        });
    }

    /// The state after the last commit, folded from as few records as the contract allows.
    pub(crate) fn fold(&self) -> PartitionState {
        let head = self.epochs.len() as u64;
        if head == 0 {
            return first_state();
        }
        let base = adtally_model::epoch::base_before(head).map(|number| &self.epochs[number as usize - 1]);
        let mut fold = Fold::new(head, base).unwrap();
        for number in adtally_model::epoch::fold_start(head)..=head {
            fold.apply(&self.epochs[number as usize - 1], u128::from(number)).unwrap();
        }
        fold.finish().unwrap()
    }

    /// Clicks per (minute, ad) over all epochs.
    pub(crate) fn counts(&self) -> BTreeMap<(i64, u64), u64> {
        let mut sums = BTreeMap::new();
        for counts in self.epochs.iter().flat_map(|epoch| &epoch.counts) {
            for (ad, _, clicks) in counts.rows() {
                *sums.entry((counts.minute.0, ad)).or_default() += clicks.unsigned_abs();
            }
        }
        sums
    }

    /// The ledger after the last epoch.
    pub(crate) fn ledger(&self) -> Ledger {
        self.epochs.last().map(|epoch| epoch.progress.ledger).unwrap_or_default()
    }
}

/// The driver's random choices, taken from a list of numbers so that failures shrink.
pub(crate) struct Choices<'a> {
    numbers: &'a [u32],
    at: usize,
}

impl<'a> Choices<'a> {
    pub(crate) fn new(numbers: &'a [u32]) -> Self {
        Choices { numbers, at: 0 }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Mixed with the number of choices so far (SplitMix64), so that a short list does not repeat forever.
        let number = self.numbers.get(self.at % self.numbers.len().max(1)).copied().unwrap_or_default();
        let mut mixed = (u64::from(number) + ((self.at as u64) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.at += 1;
        (mixed >> 33) as usize % bound.max(1)
    }
}

/// Runs inputs to their ends with random interleaving, batches, epochs and crashes. Returns the log.
pub(crate) fn drive(inputs: &[Vec<Line>], settings: TimeSettings, choices: &[u32], crashes: bool) -> Log {
    let mut choices = Choices::new(choices);
    let mut log = Log::default();
    let now = clock(LATER);
    let mut partition = start(&log, settings, inputs.len());
    let mut steps = 0;
    loop {
        let open: Vec<usize> =
            (0..inputs.len()).filter(|&input| read(&partition, input) < inputs[input].len()).collect();
        let Some(&input) = open.get(choices.below(open.len())) else { break };
        let first = read(&partition, input);
        let size = 1 + choices.below(40);
        let last = (first + size).min(inputs[input].len());
        let mut pending = batch(input as u64 + 1, first as u64, &inputs[input][first..last]);
        partition.judge(&mut pending, &now, 1 + choices.below(30)).unwrap();
        if read(&partition, input) == inputs[input].len() {
            partition.end_input(InputId(input as u64 + 1));
        }
        if choices.below(5) == 0
            && let Some(draft) = partition.end_epoch(&now, RunEnd::GoesOn).unwrap()
        {
            log.commit(draft);
        }
        if crashes && choices.below(11) == 0 {
            partition = start(&log, settings, inputs.len());
        }
        steps += 1;
        assert!(steps < 1_000_000, "the inputs wait for each other for ever");
    }
    if let Some(draft) = partition.end_epoch(&now, RunEnd::Close).unwrap() {
        log.commit(draft);
    }
    log
}

fn start(log: &Log, settings: TimeSettings, inputs: usize) -> Partition {
    let state = log.fold();
    let known: Vec<InputId> = state.inputs.keys().copied().collect();
    let mut partition = Partition::new(settings, state);
    for id in 1..=inputs as u64 {
        if !known.contains(&InputId(id)) {
            partition.add_input(new_input(id), &clock(LATER));
        }
    }
    partition
}

/// Lines read of an input, uncommitted ones included.
fn read(partition: &Partition, input: usize) -> usize {
    let row = partition.inputs().get(InputId(input as u64 + 1)).map(|input| input.row.position().to);
    (row.unwrap_or_default() / LINE_BYTES) as usize
}

/// The state of a minute at the end of a log.
pub(crate) fn state_of(log: &Log, minute: i64) -> &'static str {
    let last = log.epochs.last().unwrap();
    last.progress.frontiers.state_of(Minute(minute), last.progress.reopened_from_ms).as_str()
}

/// Runs one input that does not end, in one batch and one epoch.
pub(crate) fn drive_open(lines: &[Line], settings: TimeSettings) -> Log {
    let mut log = Log::default();
    let mut partition = start(&log, settings, 1);
    let mut pending = batch(1, 0, lines);
    partition.judge(&mut pending, &clock(LATER), usize::MAX).unwrap();
    if let Some(draft) = partition.end_epoch(&clock(LATER), RunEnd::GoesOn).unwrap() {
        log.commit(draft);
    }
    log
}

/// The state of a partition that has read nothing.
pub(crate) fn first_state() -> PartitionState {
    PartitionState { progress: Progress { next_input: 1, ..Progress::default() }, ..PartitionState::default() }
}
