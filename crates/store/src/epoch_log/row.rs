//! The encoding of an input's row. It is the same in every format; later additions are in tagged fields.

use adtally_model::input::Fingerprint;
use adtally_model::{FileLog, InputId, InputLog, InputRow, InputStatus, InputTime, Ledger, Position};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A row of format 1, which supported only files. An input of records has the fields of an empty file, and a tagged
/// field that marks it.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    id: InputId,
    name: Arc<str>,
    fingerprint: Fingerprint,
    generation: u32,
    compressed: bool,
    size: u64,
    position: Position,
    time: InputTime,
    status: InputStatus,
    ledger: Ledger,
    seen_at_ms: i64,
}

/// Converts the rows of inputs to their written form.
pub(super) fn written(rows: &[Arc<InputRow>]) -> Vec<Row> {
    let none = FileLog::default();
    let written = |row: &Arc<InputRow>| {
        let file = row.file().unwrap_or(&none);
        Row {
            id: row.id,
            name: Arc::clone(&row.name),
            fingerprint: file.fingerprint,
            generation: file.generation,
            compressed: file.compressed,
            size: file.size,
            position: file.position,
            time: row.time,
            status: row.status,
            ledger: row.ledger,
            seen_at_ms: row.seen_at_ms,
        }
    };
    rows.iter().map(written).collect()
}

/// Converts written rows back to inputs' rows, as far as format 1 supports them.
pub(super) fn read(rows: Vec<Row>) -> Vec<Arc<InputRow>> {
    let read = |row: Row| {
        let file = FileLog {
            fingerprint: row.fingerprint,
            generation: row.generation,
            compressed: row.compressed,
            size: row.size,
            position: row.position,
            csv_header: None,
        };
        Arc::new(InputRow {
            id: row.id,
            name: row.name,
            origin: Arc::default(),
            log: InputLog::File(file),
            time: row.time,
            status: row.status,
            ledger: row.ledger,
            seen_at_ms: row.seen_at_ms,
        })
    };
    rows.into_iter().map(read).collect()
}
