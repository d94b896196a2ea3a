//! Tagged fields of a record, since format 2. A reader ignores unknown tags.

use adtally_model::input::origin;
use adtally_model::reconcile::Intake;
use adtally_model::{Epoch, Error, InputLog, InputRow, Ledger, Position, Result, TopicPartition};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// [`InputRow::origin`], UTF-8; omitted if it follows from name and generation.
const ORIGIN: u16 = 1;

/// [`FileLog::csv_header`](adtally_model::FileLog::csv_header), as in the file.
const CSV_HEADER: u16 = 2;

/// [`Ledger::nul_bytes`], a u64, little-endian; omitted if it is 0.
const NUL_BYTES: u16 = 3;

/// [`Progress::source`](adtally_model::Progress::source): two u64, little-endian; omitted if the source has no position
/// of its own.
const SOURCE: u16 = 4;

/// Marks an input that is [`InputLog::Records`]; empty.
const RECORDS: u16 = 5;

/// [`Epoch::reconcile`], postcard; omitted if there is none.
const RECONCILE: u16 = 6;

/// [`StagedFile::row_hash_sum`](adtally_model::StagedFile::row_hash_sum), an i64, little-endian; omitted if unknown.
const ROW_HASH_SUM: u16 = 7;

/// [`Reconciled::intake`](adtally_model::reconcile::Reconciled::intake), postcard; omitted if nothing was taken in.
const INTAKE: u16 = 8;

/// [`Progress::topic`](adtally_model::Progress::topic): a u128 and two u32, little-endian; omitted if there is none.
const TOPIC: u16 = 9;

/// Marks a partition that [is retired](adtally_model::Progress::is_retired); empty.
const RETIRED: u16 = 10;

/// [`Ledger::gap_offsets`], a u64, little-endian; omitted if it is 0.
const GAP_OFFSETS: u16 = 11;

/// One field.
#[derive(Serialize, Deserialize)]
pub(super) struct Tagged {
    of: Part,
    tag: u16,
    value: Vec<u8>,
}

/// The part of a record that a field belongs to.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Part {
    /// The partition.
    Partition,
    /// The row with the sums of removed inputs.
    Gone,
    /// The input at this index in [`Epoch::inputs`].
    Input(u32),
    /// The input at this index in the base.
    BaseInput(u32),
    /// The file at this index in [`Epoch::staged`].
    Staged(u32),
}

/// The tagged fields of a record.
///
/// # Errors
/// Internal when a field cannot be encoded.
pub(super) fn of(epoch: &Epoch) -> Result<Vec<Tagged>> {
    let mut fields = Vec::new();
    if let Some(reconcile) = &epoch.reconcile {
        let value = postcard::to_stdvec(reconcile.as_ref())
            .map_err(|error| Error::internal("the state of reconciliation cannot be encoded").because(error))?;
        fields.push(Tagged { of: Part::Partition, tag: RECONCILE, value });
        if reconcile.state.intake != Intake::default() {
            let value = postcard::to_stdvec(&reconcile.state.intake)
                .map_err(|error| Error::internal("the ledger of intake cannot be encoded").because(error))?;
            fields.push(Tagged { of: Part::Partition, tag: INTAKE, value });
        }
    }
    for (file, at) in epoch.staged.iter().zip(0..) {
        if let Some(sum) = file.row_hash_sum {
            fields.push(Tagged { of: Part::Staged(at), tag: ROW_HASH_SUM, value: sum.to_le_bytes().to_vec() });
        }
    }
    of_ledger(&epoch.progress.ledger, Part::Partition, &mut fields);
    if let Some(Position { from, to }) = epoch.progress.source {
        let value = [from.to_le_bytes(), to.to_le_bytes()].concat();
        fields.push(Tagged { of: Part::Partition, tag: SOURCE, value });
    }
    if let Some(TopicPartition { topic_id, partition, partitions }) = epoch.progress.topic {
        let numbers = [partition.to_le_bytes(), partitions.to_le_bytes()].concat();
        let value = [&topic_id.to_le_bytes()[..], &numbers].concat();
        fields.push(Tagged { of: Part::Partition, tag: TOPIC, value });
    }
    if epoch.progress.is_retired {
        fields.push(Tagged { of: Part::Partition, tag: RETIRED, value: Vec::new() });
    }
    of_ledger(&epoch.progress.gone, Part::Gone, &mut fields);
    for (row, at) in epoch.inputs.iter().zip(0..) {
        of_input(row, Part::Input(at), &mut fields);
    }
    for (row, at) in epoch.base.iter().flat_map(|base| &base.inputs).zip(0..) {
        of_input(row, Part::BaseInput(at), &mut fields);
    }
    Ok(fields)
}

fn of_ledger(ledger: &Ledger, of: Part, fields: &mut Vec<Tagged>) {
    for (tag, number) in [(NUL_BYTES, ledger.nul_bytes), (GAP_OFFSETS, ledger.gap_offsets)] {
        if number > 0 {
            fields.push(Tagged { of, tag, value: number.to_le_bytes().to_vec() });
        }
    }
}

fn of_input(row: &InputRow, of: Part, fields: &mut Vec<Tagged>) {
    if !is_derived(row) {
        fields.push(Tagged { of, tag: ORIGIN, value: row.origin.as_bytes().to_vec() });
    }
    if row.log == InputLog::Records {
        fields.push(Tagged { of, tag: RECORDS, value: Vec::new() });
    }
    if let Some(header) = row.file().and_then(|file| file.csv_header.as_ref()) {
        fields.push(Tagged { of, tag: CSV_HEADER, value: header.to_vec() });
    }
    of_ledger(&row.ledger, of, fields);
}

/// Whether an input's origin follows from its name and generation.
fn is_derived(row: &InputRow) -> bool {
    let rest = row.origin.strip_prefix(&*row.name);
    rest.is_some_and(|rest| match row.file().map_or(0, |file| file.generation) {
        0 => rest.is_empty(),
        generation => rest.strip_prefix('#').is_some_and(|number| number == generation.to_string()),
    })
}

/// Applies the tagged fields to an epoch.
///
/// # Errors
/// Corrupt when a known field has an invalid value, or its part does not exist.
pub(super) fn apply(epoch: &mut Epoch, fields: Vec<Tagged>) -> Result<()> {
    let base = epoch.base.as_deref_mut().map_or(&mut [][..], |base| &mut base.inputs);
    for row in epoch.inputs.iter_mut().chain(base) {
        let row = Arc::make_mut(row);
        row.origin = origin(&row.name, row.file().map_or(0, |file| file.generation));
    }
    for field in fields {
        apply_one(epoch, field)?;
    }
    Ok(())
}

fn apply_one(epoch: &mut Epoch, Tagged { of, tag, value }: Tagged) -> Result<()> {
    let wrong = |what: &str| Error::corrupt(format!("a tagged field ({tag}) of the record {what}"));
    let row = match of {
        Part::Input(at) => epoch.inputs.get_mut(at as usize),
        Part::BaseInput(at) => epoch.base.as_deref_mut().and_then(|base| base.inputs.get_mut(at as usize)),
        Part::Partition | Part::Gone | Part::Staged(_) => None,
    };
    let row = row.map(Arc::make_mut);
    match (tag, row, of) {
        (ORIGIN, Some(row), _) => {
            row.origin = String::from_utf8(value).map_err(|_| wrong("is not UTF-8"))?.into();
        }
        (CSV_HEADER, Some(row), _) => {
            let file = row.file_mut().ok_or_else(|| wrong("belongs to no file"))?;
            file.csv_header = Some(value.into());
        }
        (RECORDS, Some(row), _) => row.log = InputLog::Records,
        (NUL_BYTES | GAP_OFFSETS, row, of) => {
            let number = value.try_into().map_err(|_| wrong("is not a number"))?;
            let ledger = match (row, of) {
                (Some(row), _) => &mut row.ledger,
                (None, Part::Partition) => &mut epoch.progress.ledger,
                (None, Part::Gone) => &mut epoch.progress.gone,
                (None, _) => return Err(wrong("belongs to no input")),
            };
            let number = u64::from_le_bytes(number);
            *(if tag == NUL_BYTES { &mut ledger.nul_bytes } else { &mut ledger.gap_offsets }) = number;
        }
        (RECONCILE, _, Part::Partition) => {
            let record = postcard::from_bytes(&value).map_err(|_| wrong("is no state of reconciliation"))?;
            epoch.reconcile = Some(Arc::new(record));
        }
        (INTAKE, _, Part::Partition) => {
            // It follows the state that it belongs to.
            let record = epoch.reconcile.as_mut().ok_or_else(|| wrong("has no state of reconciliation"))?;
            Arc::make_mut(record).state.intake =
                postcard::from_bytes(&value).map_err(|_| wrong("is no ledger of intake"))?;
        }
        (ROW_HASH_SUM, _, Part::Staged(at)) => {
            let file = epoch.staged.get_mut(at as usize).ok_or_else(|| wrong("belongs to no file"))?;
            let sum = value.try_into().map_err(|_| wrong("is not a number"))?;
            file.row_hash_sum = Some(i64::from_le_bytes(sum));
        }
        (SOURCE, _, Part::Partition) => {
            let halves = value.split_at_checked(8).ok_or_else(|| wrong("is no position"))?;
            let number = |half: &[u8]| half.try_into().map(u64::from_le_bytes).map_err(|_| wrong("is no position"));
            epoch.progress.source = Some(Position { from: number(halves.0)?, to: number(halves.1)? });
        }
        (TOPIC, _, Part::Partition) => {
            let value: [u8; 24] = value.try_into().map_err(|_| wrong("is no partition of a topic"))?;
            let number = |at: usize| u32::from_le_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
            let mut topic_id = [0; 16];
            topic_id.copy_from_slice(&value[..16]);
            let topic_id = u128::from_le_bytes(topic_id);
            epoch.progress.topic = Some(TopicPartition { topic_id, partition: number(16), partitions: number(20) });
        }
        (RETIRED, _, Part::Partition) => epoch.progress.is_retired = true,
        (ORIGIN | CSV_HEADER | RECORDS, None, _) => return Err(wrong("belongs to no input")),
        _ => {}
    }
    Ok(())
}
