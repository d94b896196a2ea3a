//! Reads dead letters from the lake.

use super::rows::{longs, texts, times};
use super::{MEMORY_BYTES_MAX, failed, is_without_fields};
use crate::intake::Origin;
use crate::letters::{Letter, LetterSelection};
use adtally_model::{Error, RECONCILE, Result};
use adtally_store::lake::Lake;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::functions::string::expr_fn::contains;
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use datafusion::scalar::ScalarValue;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// Selected dead letters, in batches.
pub(crate) struct Letters {
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl Letters {
    /// The selected dead letters, with their lines if `whole`.
    pub(crate) async fn open(lake: &Lake, selection: &LetterSelection, whole: bool) -> Result<Letters> {
        let columns = ["verdict", "reason", "input", "position", "received_at", "payload", "header"];
        let selected = select(lake, selection).await?;
        let selected = selected.select_columns(&columns[..if whole { 7 } else { 5 }]).map_err(failed)?;
        Letters::of(selected).await
    }

    /// The same of lines whose clicks are not stored beside them, with their number.
    pub(crate) async fn open_rejected(lake: &Lake, selection: &LetterSelection) -> Result<(Letters, u64)> {
        let is_rejected = col("verdict").in_list(vec![lit("malformed"), lit("invalid")], false);
        let selected = select(lake, selection).await?;
        let selected = selected.filter(is_rejected.or(is_without_fields())).map_err(failed)?;
        let lines = selected.clone().count().await.map_err(failed)? as u64;
        Ok((Letters::of(selected).await?, lines))
    }

    async fn of(selected: DataFrame) -> Result<Letters> {
        let batches = selected.execute_stream().await.map_err(failed)?;
        Ok(Letters { batches: batches.map(|batch| batch.map_err(failed)).boxed() })
    }

    /// The next ones; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Letter>>> {
        self.batches.try_next().await?.map(|batch| letters_of(&batch)).transpose()
    }
}

async fn select(lake: &Lake, LetterSelection { reason, since_ms }: &LetterSelection) -> Result<DataFrame> {
    let session = lake.session_at(&lake.epochs().await?, MEMORY_BYTES_MAX).await?;
    // One file after the other, so that lines come about as they were read.
    let config = session.copied_config().with_target_partitions(1);
    let in_order = SessionContext::new_with_config_rt(config, session.runtime_env());
    let letters = session.table("dead_letters").await.map_err(failed)?;
    in_order.register_table("dead_letters", letters.into_view()).map_err(failed)?;
    let mut selected = in_order.table("dead_letters").await.map_err(failed)?;
    selected = selected.filter(col("partition").not_eq(lit(i64::from(RECONCILE)))).map_err(failed)?;
    if let Some(reason) = reason {
        let is_meant = col("verdict").eq(lit(reason)).or(contains(col("reason"), lit(reason)));
        selected = selected.filter(is_meant).map_err(failed)?;
    }
    if let Some(since_ms) = since_ms {
        let since = ScalarValue::TimestampMicrosecond(since_ms.checked_mul(1_000), Some("UTC".into()));
        selected = selected.filter(col("received_at").gt_eq(lit(since))).map_err(failed)?;
    }
    Ok(selected)
}

fn letters_of(batch: &RecordBatch) -> Result<Vec<Letter>> {
    let (verdicts, reasons, inputs) = (texts(batch, "verdict")?, texts(batch, "reason")?, texts(batch, "input")?);
    let (positions, received) = (longs(batch, "position")?, times(batch, "received_at")?);
    let (payloads, headers) = (bytes(batch, "payload")?, bytes(batch, "header")?);
    let text = |column: &ArrayRef, row: usize| column.as_string::<i32>().value(row).to_owned();
    let long = |column: &ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
    let of = |column: &Option<ArrayRef>, row: usize| -> Option<Vec<u8>> {
        let column = column.as_ref().filter(|column| column.is_valid(row))?;
        Some(column.as_binary::<i32>().value(row).to_vec())
    };
    let mut input: Arc<str> = Arc::default();
    let letter = |row: usize| {
        if *input != *inputs.as_string::<i32>().value(row) {
            input = inputs.as_string::<i32>().value(row).into();
        }
        Letter {
            verdict: text(&verdicts, row),
            reason: text(&reasons, row),
            payload: of(&payloads, row).unwrap_or_default(),
            header: of(&headers, row).map(Into::into),
            origin: Origin {
                input: Arc::clone(&input),
                position: long(&positions, row).unsigned_abs(),
                received_at_ms: long(&received, row).div_euclid(1_000),
            },
        }
    };
    Ok((0..batch.num_rows()).map(letter).collect())
}

fn bytes(batch: &RecordBatch, name: &str) -> Result<Option<ArrayRef>> {
    let column = batch.column_by_name(name).map(|column| cast(column, &DataType::Binary)).transpose();
    column.map_err(|error| Error::corrupt(format!("dead letters have another type of `{name}`")).because(error))
}
