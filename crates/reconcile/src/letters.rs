//! Dead letters: lists them, and decodes rejected lines again.

use crate::corrections::Corrections;
use crate::intake::{Intaker, Origin};
use crate::recount::Letters;
use crate::run::ReconcileReport;
use adtally_model::dead_letter::{CONFLICT_OF, PAYLOAD_BYTES_MAX, Verdict, reason_kind};
use adtally_model::reconcile::Cause;
use adtally_model::{ClickColumns, Rejected, Result};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::Lake;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most reasons that a list distinguishes.
pub const REASONS_MAX: usize = 1_000;

/// Lines that are decoded at once.
const LINES_AT_ONCE: usize = 100_000;

/// Bytes of lines that are decoded at once.
const BYTES_AT_ONCE: usize = 32 << 20;

/// Why a line is rejected of which only the beginning is stored. The beginning alone could be read as another click.
const CUT: &str = "only its first 4 KiB are stored: use backfill with its file";

/// Which dead letters are meant.
#[derive(Clone, Debug, Default)]
pub struct LetterSelection {
    /// The verdict, or a part of the reason; `None` takes all.
    pub reason: Option<String>,
    /// Only those that were read at or after this time, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
}

/// A dead letter in the lake.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The ledger's word for its verdict, or `conflict`.
    pub verdict: String,
    /// The reason in words.
    pub reason: String,
    /// The line; of other lines than invalid ones, at most its first 4 KiB.
    pub payload: Vec<u8>,
    /// The header of its CSV file, if it has one.
    pub header: Option<Arc<[u8]>>,
    /// Where its line is, and when it was read.
    pub origin: Origin,
}

/// The dead letters with one verdict and one kind of reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LetterGroup {
    /// The ledger's word for the verdict, or `conflict`.
    pub verdict: String,
    /// The kind of their reasons: what they have in common.
    pub kind: String,
    /// The reason of the line that was read first.
    pub reason: String,
    /// The number of lines.
    pub lines: u64,
    /// The input and the position of the line that was read first.
    pub first: (Arc<str>, u64),
    /// When the first and the last of them were read, in milliseconds since the Unix epoch.
    pub received_ms: (i64, i64),
}

/// The selected dead letters by verdict and reason, most lines first. Beyond [`REASONS_MAX`] reasons, the others are one.
///
/// # Errors
/// External when the lake cannot be read.
pub async fn letter_groups(lake: &Lake, selection: &LetterSelection) -> Result<Vec<LetterGroup>> {
    let mut groups: BTreeMap<(String, String), LetterGroup> = BTreeMap::new();
    let mut letters = Letters::open(lake, selection, false).await?;
    while let Some(batch) = letters.next().await? {
        for Letter { verdict, reason, origin, .. } in batch {
            let mut kind = match reason.strip_prefix(CONFLICT_OF) {
                Some(_) => CONFLICT_OF.trim_end().to_owned(),
                None => reason_kind(&reason),
            };
            if groups.len() >= REASONS_MAX && !groups.contains_key(&(verdict.clone(), kind.clone())) {
                kind = "other reasons".to_owned();
            }
            let group = groups.entry((verdict.clone(), kind.clone())).or_insert_with(|| LetterGroup {
                verdict,
                kind,
                reason: reason.clone(),
                lines: 0,
                first: (Arc::clone(&origin.input), origin.position),
                received_ms: (origin.received_at_ms, origin.received_at_ms),
            });
            group.lines += 1;
            let (first_ms, last_ms) = group.received_ms;
            if (origin.received_at_ms, origin.position) < (first_ms, group.first.1) {
                group.first = (Arc::clone(&origin.input), origin.position);
                group.reason = reason;
            }
            group.received_ms = (first_ms.min(origin.received_at_ms), last_ms.max(origin.received_at_ms));
        }
    }
    let mut groups: Vec<LetterGroup> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.lines));
    Ok(groups)
}

/// The first of the selected dead letters, as they are stored.
///
/// # Errors
/// External when the lake cannot be read.
pub async fn letters(lake: &Lake, selection: &LetterSelection, limit: usize) -> Result<Vec<Letter>> {
    let mut found = Vec::new();
    let mut letters = Letters::open(lake, selection, true).await?;
    while found.len() < limit
        && let Some(batch) = letters.next().await?
    {
        found.extend(batch.into_iter().take(limit - found.len()));
    }
    Ok(found)
}

/// Receives a line, and what becomes of it.
pub type Tell<'a> = &'a (dyn Fn(&Letter, &str) + Send + Sync);

/// Receives what is done and what is to do.
pub type Watch<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Decodes rejected lines again.
pub trait Redecode: Send + Sync {
    /// Decodes lines, each with the header of its CSV file if it has one. Each line becomes a click or a rejected line,
    /// whose `line_start` is the number of the line among these, from 0.
    fn decode(&self, lines: &[Letter]) -> (ClickColumns, Vec<Rejected>);
}

/// Decodes the selected malformed and invalid lines again, and late and future lines that were stored without their fields. Each
/// of their clicks counts once. Lines of minutes that are not final wait. Without `corrections` it is a dry run, which changes
/// nothing. `tell` is called for each line with what becomes of it, `watch` with the lines done and the lines to do.
///
/// # Errors
/// External when a store fails, corrupt when stored data is damaged, fenced when another process reconciles.
pub async fn replay(
    lake: &Lake,
    logs: &EpochLogs,
    corrections: Option<&mut Corrections>,
    selection: &LetterSelection,
    decoder: &dyn Redecode,
    made_by: &'static str,
    (tell, watch): (Tell<'_>, Watch<'_>),
) -> Result<ReconcileReport> {
    let mut intake = Intaker::begin(lake, logs, corrections, Cause::Replay, made_by).await?;
    let (mut letters, lines) = Letters::open_rejected(lake, selection).await?;
    let mut done = 0;
    let mut waiting: Vec<Letter> = Vec::new();
    let mut bytes = 0;
    loop {
        let batch = letters.next().await?;
        let is_last = batch.is_none();
        bytes += batch.iter().flatten().map(|letter| letter.payload.len()).sum::<usize>();
        waiting.extend(batch.into_iter().flatten());
        if waiting.len() >= LINES_AT_ONCE || bytes >= BYTES_AT_ONCE || is_last {
            done += waiting.len() as u64;
            replay_some(&mut intake, std::mem::take(&mut waiting), decoder, tell).await?;
            bytes = 0;
            watch(done, lines.max(done));
        }
        if is_last {
            return intake.finish().await;
        }
    }
}

async fn replay_some(
    intake: &mut Intaker<'_>,
    letters: Vec<Letter>,
    decoder: &dyn Redecode,
    tell: Tell<'_>,
) -> Result<()> {
    let is_cut =
        |letter: &Letter| letter.verdict != Verdict::Invalid.as_str() && letter.payload.len() >= PAYLOAD_BYTES_MAX;
    let (cut, letters): (Vec<Letter>, Vec<Letter>) = letters.into_iter().partition(is_cut);
    let mut reject = |letter: &Letter, reason: &str| {
        let Origin { input, position, .. } = &letter.origin;
        intake.reject(|| format!("{input}, position {position}: {reason}"));
        tell(letter, &format!("rejected: {reason}"));
    };
    cut.iter().for_each(|letter| reject(letter, CUT));
    let (clicks, rejected) = decoder.decode(&letters);
    let letter_of = |number: u32| &letters[number as usize];
    for Rejected { line_start, reason, .. } in &rejected {
        reject(letter_of(*line_start), reason);
    }
    let origins: Vec<Origin> = clicks.line_start.iter().map(|&number| letter_of(number).origin.clone()).collect();
    let outcomes = intake.take(&clicks, &origins).await?;
    for (outcome, &number) in outcomes.iter().zip(&clicks.line_start) {
        tell(letter_of(number), outcome.as_str());
    }
    Ok(())
}
