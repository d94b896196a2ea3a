//! Takes lines in after their minutes were final: decodes rejected lines again, and reads files that are brought in later.
//! The room `reconcile` decides what counts.

use crate::clock::Clock;
use crate::files::file_source;
use crate::options::Ending;
use crate::settings::Settings;
use adtally_model::reconcile::Cause;
use adtally_model::time::rfc3339;
use adtally_model::{
    ClickColumns, DecodedBatch, Error, IdentityKey, InputId, LaneId, Minute, PartitionState, Rejected, Result,
};
use adtally_reconcile::{Corrections, Intaker, Letter, Origin, ReconcileReport, Redecode};
use adtally_source::{DecodeSettings, Decoder, Discovery, LocalFiles, ReadOutcome, Source, SourceBlock};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::Lake;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Clicks that are taken in at once.
const CLICKS_AT_ONCE: usize = 250_000;

/// The most problems of files that an error names.
const PROBLEMS_MAX: usize = 5;

/// Decodes rejected lines by some settings.
pub struct LineDecoder(Decoder);

impl LineDecoder {
    /// A decoder with these settings.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn new(settings: DecodeSettings, key: IdentityKey) -> Result<LineDecoder> {
        Decoder::new(settings, key).map(LineDecoder)
    }
}

impl Redecode for LineDecoder {
    fn decode(&self, lines: &[Letter]) -> (ClickColumns, Vec<Rejected>) {
        self.0.decode_again(lines.iter().map(|letter| (&*letter.payload, letter.header.as_deref())))
    }
}

/// The files of a bounded reading that belongs to no partition.
struct Reading {
    source: Box<dyn Source>,
    decoder: Decoder,
    clock: Arc<dyn Clock>,
    names: BTreeMap<InputId, Arc<str>>,
    lanes: VecDeque<LaneId>,
}

impl Reading {
    /// Finds the files of `settings`.
    fn open(settings: &Settings, key: IdentityKey, clock: &Arc<dyn Clock>) -> Result<Reading> {
        let state = PartitionState::default();
        let mut source = file_source(settings, Ending::Scratch, Box::new(LocalFiles), &state, clock.as_ref())?;
        let mut names = BTreeMap::new();
        for discovery in source.discover(clock.monotonic_ms())? {
            if let Discovery::Found { facts, .. } = discovery {
                names.insert(facts.input, facts.name);
            }
        }
        let unopened: Vec<String> =
            source.unopened().iter().take(PROBLEMS_MAX).map(|unopened| unopened.reason.clone()).collect();
        if !unopened.is_empty() {
            return Err(Error::external(format!("not all files can be read: {}", unopened.join("; "))));
        }
        let decoder = Decoder::new(DecodeSettings::clone(&settings.source.tail.decode), key)?;
        let lanes = names.keys().map(|&input| input.into()).collect();
        Ok(Reading { source, decoder, clock: Arc::clone(clock), names, lanes })
    }

    /// The next lines, with the name of their input; `None` after the last.
    ///
    /// # Errors
    /// External when a file cannot be read.
    fn next(&mut self) -> Result<Option<(Arc<str>, DecodedBatch)>> {
        while let Some(&lane) = self.lanes.front() {
            match self.source.read(lane, self.clock.monotonic_ms())? {
                ReadOutcome::Block(SourceBlock::Text(block)) => {
                    let name = self.names.get(&block.input).cloned().unwrap_or_default();
                    return Ok(Some((name, self.decoder.decode(block))));
                }
                ReadOutcome::Block(SourceBlock::Records(_)) => return Err(Error::internal("a file has records")),
                ReadOutcome::Busy => {}
                ReadOutcome::Waits => self.lanes.rotate_left(1),
                ReadOutcome::AtEnd | ReadOutcome::Ended => {
                    self.lanes.pop_front();
                    self.check()?;
                }
                ReadOutcome::Unreadable(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Checks that nothing of the files was lost.
    fn check(&mut self) -> Result<()> {
        for discovery in self.source.discover(self.clock.monotonic_ms())? {
            if let Discovery::Gap { input, bytes, reason } = discovery {
                let name = self.names.get(&input).cloned().unwrap_or_default();
                return Err(Error::external(format!(
                    "{bytes} bytes of {name} cannot be read: {reason}. Bring it in again: what was read counts once"
                )));
            }
        }
        Ok(())
    }
}

/// Brings files in whose minutes are final: each of their clicks counts once. Lines of minutes that are not final wait.
/// Without `corrections` it is a dry run, which changes nothing. `watch` is called with the bytes done and the bytes to do.
///
/// # Errors
/// User when there are no such files, or when they have clicks of minutes whose raw clicks are no longer kept, of which
/// copies could not be found; external when a file cannot be read or a store fails.
pub async fn backfill(
    (lake, logs, corrections): (&Lake, &EpochLogs, Option<&mut Corrections>),
    (settings, key): (&Settings, IdentityKey),
    clock: &Arc<dyn Clock>,
    made_by: &'static str,
    watch: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<ReconcileReport> {
    let mut reading = Reading::open(settings, key, clock)?;
    let mut intake = Intaker::begin(lake, logs, corrections, Cause::Backfill, made_by).await?;
    let mut checked_bytes = 0;
    if let Some(kept_from) = intake.kept_from() {
        // Before anything changes.
        let mut whole = Reading::open(settings, key, clock)?;
        while let Some((name, batch)) = whole.next()? {
            refuse_expired(&name, &batch, kept_from)?;
            whole.source.recycle(batch.text);
            let progress = whole.source.progress();
            watch(progress.read_bytes, 2 * progress.total_bytes);
            // A service that stops must not wait for this loop.
            tokio::task::yield_now().await;
        }
        checked_bytes = whole.source.progress().total_bytes;
    }
    let (mut clicks, mut origins) = (ClickColumns::default(), Vec::new());
    while let Some((name, batch)) = reading.next()? {
        let received_at_ms = clock.wall_ms();
        for Rejected { line_start, reason, .. } in &batch.rejected {
            let position = batch.from + u64::from(*line_start);
            intake.reject(|| format!("{name}, position {position}: {reason}"));
        }
        for row in 0..batch.clicks.len() {
            clicks.push(&batch.clicks.get(row), 0, batch.clicks.identity[row]);
            let position = batch.from + u64::from(batch.clicks.line_start[row]);
            origins.push(Origin { input: Arc::clone(&name), position, received_at_ms });
        }
        reading.source.recycle(batch.text);
        if origins.len() >= CLICKS_AT_ONCE {
            intake.take(&clicks, &origins).await?;
            (clicks, origins) = (ClickColumns::default(), Vec::new());
        }
        let progress = reading.source.progress();
        watch(checked_bytes + progress.read_bytes, checked_bytes + progress.total_bytes);
        tokio::task::yield_now().await;
    }
    intake.take(&clicks, &origins).await?;
    let mut report = intake.finish().await?;
    report.unread = [reading.source.foreign(), reading.source.warnings()].concat();
    Ok(report)
}

fn refuse_expired(name: &str, batch: &DecodedBatch, kept_from: Minute) -> Result<()> {
    let clicks = &batch.clicks;
    match (0..clicks.len()).find(|&row| Minute::of(clicks.event_time_ms[row]) < kept_from) {
        None => Ok(()),
        Some(row) => Err(Error::user(format!(
            "{name}, position {}: a click of {}, but raw clicks are kept only from {kept_from} on, so copies of it could not be \
             found. Nothing was changed. Remove the lines before {kept_from} from the file",
            batch.from + u64::from(clicks.line_start[row]),
            rfc3339(clicks.event_time_ms[row]),
            kept_from = rfc3339(kept_from.start_ms())
        ))),
    }
}
