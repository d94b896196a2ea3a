//! Dead letters as JSON, for stores outside of the lake.

use super::Lake;
use super::schema::Table;
use adtally_model::{Error, Result, StagedFile, StagedTable};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use futures::TryStreamExt;
use object_store::path::Path;
use std::sync::Arc;

impl Lake {
    /// Passes on the dead letters in staged files, in order and in pieces, each letter as one JSON object without a line ending.
    /// Its fields are the columns of the table `dead_letters`, except `payload`: `line` has its text, in which bytes that are not
    /// UTF-8 are replaced; then `line_hex` has all bytes. Times are RFC 3339. Fields without a value are left out.
    ///
    /// # Errors
    /// Those of `take`; external when the store fails, corrupt when a file is missing or damaged.
    pub async fn each_letters(
        &self,
        staged: &[StagedFile],
        mut take: impl FnMut(Vec<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        for file in staged.iter().filter(|file| file.table == StagedTable::DeadLetters) {
            let file = self.table(Table::DeadLetters).reader(&Path::from(file.path.as_str()), file.size);
            let failed = file.failure();
            let mut batches = file.open().await?.build().map_err(&failed)?;
            while let Some(batch) = batches.try_next().await.map_err(&failed)? {
                let lines = as_json(&batch)
                    .map_err(|error| Error::internal("dead letters cannot be written as JSON").because(error))?;
                let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                take(lines.map(<[u8]>::to_vec).collect())?;
            }
        }
        Ok(())
    }
}

/// One line for each row.
fn as_json(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    };
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        match column.data_type() {
            DataType::Binary => {
                let bytes = column.as_binary::<i32>();
                let name = if field.name() == "payload" { "line" } else { field.name() };
                add(
                    name,
                    Arc::new(bytes.iter().map(|bytes| bytes.map(String::from_utf8_lossy)).collect::<StringArray>()),
                );
                let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
                let others = bytes.iter().map(|bytes| bytes.filter(|bytes| !is_text(bytes)));
                add(&format!("{name}_hex"), Arc::new(others.collect::<BinaryArray>()));
            }
            DataType::Timestamp(..) => {
                let times = column.as_primitive_opt::<TimestampMicrosecondType>();
                let times =
                    times.ok_or_else(|| ArrowError::SchemaError(format!("{}: not microseconds", field.name())))?;
                let texts = times.iter().map(|us| us.map(|us| adtally_model::time::rfc3339(us.div_euclid(1_000))));
                add(field.name(), Arc::new(texts.collect::<StringArray>()));
            }
            _ => add(field.name(), Arc::clone(column)),
        }
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}
